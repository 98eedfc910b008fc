"""The logger beside the record. TensorBoard and Weights & Biases, real ones, are tried by the
template's own tests.
"""

import csv
import math
from pathlib import Path

import pytest
import yaml
from harness import Project, module
from lightning.pytorch.loggers import wandb
from lightning_utilities.core.imports import RequirementCache

tracking = module("tracking")


def train(*overrides: str) -> tuple[str, dict[str, float]]:
    """Trains as `train <overrides>` does; the run's key, and the last value of each of its metrics."""
    text = module("pipeline").compose(
        [*overrides, "trainer.max_epochs=2", "trainer.enable_progress_bar=false"]
    )
    settings = module("settings").parse(yaml.safe_load(text))
    module("training.train").train(settings)
    key = module("provenance").read_json(settings.paths.reports / tracking.RUN_FILE)["record"]
    run = tracking.find_record(tracking.client(settings), settings.tracking.experiment, key)
    return key, run.data.metrics


@pytest.mark.row("E11")
def test_csv_holds_what_the_run_holds(trained: Project) -> None:
    key, found = train("logger=csv")
    with Path(".state", "csv", key, "metrics.csv").open(encoding="utf-8") as file:
        last = {
            name: float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value
        }
    names = {name for name in last if name.startswith(("train/", "val/"))}
    assert {"train/loss", "val/loss"} <= names
    assert all(math.isclose(last[name], found[name], rel_tol=1e-5, abs_tol=1e-9) for name in names)


def test_a_run_that_goes_on_keeps_its_first_csv(trained: Project) -> None:
    text = module("pipeline").compose(["logger=csv"])
    settings = module("settings").parse(yaml.safe_load(text))
    run = tracking.start(settings, "twice")
    for step in (1, 2):
        _, second = module("training.loggers").loggers(settings, run)
        second.log_metrics({"val/loss": 1.0 / step}, step)
        second.save()
        run = tracking.start(settings, "twice", key=run.key)
    assert len(list(Path(".state", "csv").glob(f"{run.key}*/metrics.csv"))) == 2


def test_a_logger_that_is_not_installed_is_one_line(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", RequirementCache("surely-not-installed"))
    extra = "logger.extra={_target_: lightning.pytorch.loggers.WandbLogger, save_dir: .state, offline: true}"
    with pytest.raises(
        ValueError, match=r"a package for this `logger` is missing: .*pip install"
    ) as caught:
        train(extra)
    assert "\n" not in str(caught.value)

"""Loggers beside the record. TensorBoard and Weights & Biases, real ones, are tried by the
template's own tests.
"""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import Project, module
from lightning.pytorch.loggers import wandb
from lightning_utilities.core.imports import RequirementCache

tracking = module("tracking")


def composed(*overrides: str) -> Any:
    small = ["trainer.max_epochs=2", "trainer.enable_progress_bar=false"]
    text = module("pipeline").compose([*overrides, *small])
    return module("settings").parse(yaml.safe_load(text))


@pytest.mark.row("E11")
def test_csv_holds_what_the_run_holds(trained: Project) -> None:
    settings = composed("logger=csv")
    module("training.train").train(settings)
    key = module("provenance").read_json(settings.paths.reports / tracking.RUN_FILE)["record"]
    run = tracking.attach(settings, key)
    metrics, last = run.client.get_run(run.id).data.metrics, dict[str, float]()
    with Path(".state", "csv", key, "metrics.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            last |= {name: float(value) for name, value in row.items() if value}
    names = {name for name in last if name.startswith(("train/", "val/"))}
    assert {"train/loss", "val/loss"} <= names
    assert all(math.isclose(last[name], metrics[name], rel_tol=1e-5) for name in names)


def test_what_goes_on_records_a_step_once(trained: Project) -> None:
    run = tracking.start(trained.settings(), "a run")
    for value in (1.0, 9.0):
        logger = module("training.loggers").RunLogger(run)
        logger.log_metrics({"loss": value, "epoch": 0}, step=1)
        run = tracking.start(trained.settings(), "a run", key=run.key)
    logger.log_metrics({"loss": 0.5, "epoch": 1}, step=2)
    history = run.client.get_metric_history(run.id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5)]


def test_a_logger_that_is_not_installed_is_named(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "_WANDB_AVAILABLE", RequirementCache("surely-not-installed"))
    settings = composed("logger=wandb")
    run = tracking.start(settings, "a run")
    with pytest.raises(Exception, match="pip install") as caught:
        module("training.loggers").loggers(settings, run)
    assert "wandb" in str(module("logs").explain(caught.value))

import csv
from pathlib import Path

import pytest
import yaml
from harness import Project, module

tracking = module("tracking")


@pytest.mark.row("E11")
def test_loggers_write_beside_the_record_and_keep_their_files(trained: Project) -> None:
    content = yaml.safe_load(module("pipeline").compose(["logger=csv"]))
    settings = module("settings").parse(content)
    more = settings.logger["csv"] | {"save_dir": ".state/more"}
    settings = settings.model_copy(update={"logger": {**settings.logger, "more": more}})
    run = tracking.start(settings, "twice")
    for step in (1, 2):
        for logger in module("training.loggers").loggers(settings, run):
            logger.log_metrics({"val/loss": 1.0 / step, "epoch": step}, step)
            logger.save()
        run = tracking.start(settings, "twice", key=run.key)
    history = run.client.get_metric_history(run.id, "val/loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5)]
    for folder in ("csv", "more"):
        files = sorted(Path(".state", folder).glob(f"{run.key}*/metrics.csv"))
        texts = [file.read_text(encoding="utf-8").splitlines() for file in files]
        assert [next(csv.DictReader(text))["val/loss"] for text in texts] == ["1.0", "0.5"]

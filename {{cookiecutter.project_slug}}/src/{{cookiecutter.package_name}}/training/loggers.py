"""Where a training's numbers go: to its run, and to the loggers that `configs/logger` adds."""

import time
from argparse import Namespace
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ..glance import clean
from ..settings import Settings
from ..tracking import Run


class RunLogger(Logger):
    """Metrics by optimizer step. The run begins and ends elsewhere: Lightning's own MLFlowLogger
    would end it with the fit. What an interrupted process recorded is not recorded again.
    """

    name = "run"
    version = None

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.recorded = dict[str, int]()

    def last_step(self, name: str) -> int:
        """Of an earlier process. By metric: it may have ended between two of the same step."""
        if name not in self.recorded:
            history = self.run.store.get_metric_history(self.run.local_id, clean(name))
            self.recorded[name] = max((metric.step for metric in history), default=-1)
        return self.recorded[name]

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if step is not None:
            new = {k: value for k, value in metrics.items() if step > self.last_step(k)}
            self.run.metrics(new, step=step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Parameters are recorded once, with the run's other inputs."""


def loggers(settings: Settings, run: Run) -> list[Logger]:
    """The run's, and the configured ones, where `{record}` stands for the run's key; a run that
    goes on gets another one, as a CSV logger deletes what it finds.
    """
    record = f"{run.key}-{int(time.time())}" if run.resumed else run.key
    created: list[Logger] = [RunLogger(run)]
    for options in settings.logger.values():
        texts = {k: v.format(record=record) for k, v in options.items() if isinstance(v, str)}
        created.append(instantiate(options | texts))
    return created

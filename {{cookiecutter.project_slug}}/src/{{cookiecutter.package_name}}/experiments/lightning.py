"""A Lightning logger that writes to a run's journal."""

from argparse import Namespace
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ..tracking import Run


class JournalLogger(Logger):
    """Metrics by optimizer step. The run begins and ends elsewhere."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.step = run, -1

    @property
    def name(self) -> str:
        return "journal"

    @property
    def version(self) -> str:
        return self.run.key

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        step = step or 0
        if step == self.step:  # Lightning adds the epoch to every call: once per step is enough
            metrics = {name: value for name, value in metrics.items() if name != "epoch"}
        self.run.metrics(metrics, step=step)
        self.step = step

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Parameters are recorded once, with the run's other inputs."""

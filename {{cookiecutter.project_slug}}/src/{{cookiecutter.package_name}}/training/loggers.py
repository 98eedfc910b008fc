"""Where a training's numbers go: to the record of its run, and to the second logger that
`configs/logger` names.
"""

from pathlib import Path

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger

from ..experiments.lightning import JournalLogger
from ..settings import Settings
from ..tracking import Run


def loggers(settings: Settings, run: Run) -> list[Logger]:
    """The record, and the second logger under the run's key. Raises ValueError where its package is
    not installed.
    """
    extra = settings.logger.extra
    if extra is None:
        return [JournalLogger(run)]
    # A run that goes on gets a folder of its own: a CSV logger deletes what it finds.
    earlier = len(list(Path(extra.get("save_dir", ".")).glob(f"{run.key}*")))
    try:
        second = instantiate(extra, version=f"{run.key}-{earlier + 1}" if earlier else run.key)
    except InstantiationException as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise
        raise ValueError(
            f"a package for this `logger` is missing: {' '.join(str(error.__cause__).split())}"
        ) from None
    return [JournalLogger(run), second]

"""What an interrupted training goes on from: its checkpoints, and the run that they belong to.

From the end of an epoch a training goes on bit for bit, for order and random numbers follow from
seed and epoch; inside of an epoch approximately: the numbers that dropout and augmentation draw
are other ones, and the means of that epoch leave out the batches before.
"""

import errno
import hashlib
import json
import shutil
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from .. import logs, tracking
from ..provenance import read_json, sha256, stage_code, write_json
from ..settings import LEARNS, Settings

BEST = "best.ckpt"
CLAIM = "run.json"


def state_folder(settings: Settings) -> Path:
    return settings.paths.state / "training"


class Reseed(Callback):
    """Every epoch draws from a seed of its own, so that one that is done again is the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        number = trainer.current_epoch * trainer.world_size + trainer.global_rank
        L.seed_everything((self.seed * 100_003 + number) % 2**32, verbose=False)


def callbacks(settings: Settings) -> list[Callback]:
    """Keep the best checkpoint, those of the last two epochs, and one inside of a long epoch."""
    options: dict[str, dict[str, Any]] = {
        "best": {"monitor": "val/loss"},
        "{epoch:04d}": {"monitor": "epoch", "mode": "max", "save_top_k": 2},
        "inside": {"train_time_interval": timedelta(seconds=settings.training.checkpoint_seconds)},
    }
    common: Any = {"auto_insert_metric_name": False, "enable_version_counter": False}
    folder = state_folder(settings)
    savers = [ModelCheckpoint(folder, name, **values, **common) for name, values in options.items()]
    return [Reseed(settings.seed), *savers]


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are removed. None where there is none."""
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            # torch calls a cut file a failure of the machine.
            with zipfile.ZipFile(path) as archive:
                archive.testzip()
            torch.load(path, map_location="cpu", weights_only=True, mmap=False)
            return path
        except MemoryError:
            raise
        except Exception as error:  # whatever a zip or a pickle has to say
            # The machine's trouble is not the file's; PyTorch may call a file that was cut invalid.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            message = "%s is damaged (%s): going on from the checkpoint before it"
            logs.get("train").warning(message, path, str(error).splitlines()[0][:80])
            path.unlink()
    return None


def fingerprint(settings: Settings) -> str:
    """SHA-256 over what the weights follow from: configuration, code, data and PyTorch. It is of
    this folder too, for Lightning's checkpoints name each other by path.
    """
    values = settings.model_dump(mode="json", include={"seed", "data", *LEARNS})
    splits = [sha256(path) for path in sorted(settings.paths.splits.glob("*.parquet"))]
    folder = str(state_folder(settings).resolve())
    content = [values, stage_code("train"), splits, torch.__version__, L.__version__, folder]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def claim(settings: Settings) -> str:
    """Key of the run to record in: that of the interrupted training that this one goes on with, or
    a new one.
    """
    folder = state_folder(settings)
    current = fingerprint(settings)
    earlier = read_json(folder / CLAIM) if (folder / CLAIM).is_file() else {}
    if earlier.get("fingerprint") == current:
        return str(earlier["key"])
    forget(settings)
    key = tracking.new_key()
    write_json(folder / CLAIM, {"fingerprint": current, "key": key})
    return key


def lock(settings: Settings) -> AcquireReturnProxy[FileLock]:
    """Lets one training work here at a time: a killed pipeline may have left one that does."""
    settings.paths.state.mkdir(parents=True, exist_ok=True)
    file_lock = FileLock(f"{state_folder(settings)}.lock")
    try:
        return file_lock.acquire(blocking=False)
    except Timeout:
        logs.get("train").warning("another training works in this folder: waiting for it to end")
        return file_lock.acquire()


def forget(settings: Settings) -> None:
    """Removes what a training that is over would have gone on from."""
    shutil.rmtree(state_folder(settings), ignore_errors=True)


def save(source: Path, target: Path) -> dict[str, Any]:
    """Copies a checkpoint without the state of callbacks, which has paths of this machine."""
    checkpoint: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    checkpoint["callbacks"] = {}
    torch.save(checkpoint, target)
    return checkpoint

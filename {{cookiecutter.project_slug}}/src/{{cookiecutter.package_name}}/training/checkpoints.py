"""What an interrupted training goes on from, bit for bit: whole checkpoints, and the run that they
belong to.
"""

import hashlib
import io
import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from .. import logs
from ..provenance import read_json, sha256, stage_code
from ..settings import Settings
from ..tracking import new_key

BEST, CLAIM, KEPT = "best.ckpt", "run.json", 2
ASKED = 20  # batches between two agreements of several processes to write a checkpoint
SUMS = ("seen", "gradient")  # of the epoch so far, in the module


def state_folder(settings: Settings) -> Path:
    return settings.paths.state / "training"


def fingerprint(settings: Settings) -> str:
    """SHA-256 over all that decides the weights: the parameters and code of the train stage, its
    data, and PyTorch.
    """
    known = settings.model_dump(mode="json")
    names = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]["train"][
        "params"
    ]
    values = {name: known for name in names}
    for name in names:
        for part in name.split("."):
            values[name] = values[name][part]
    splits = [sha256(path) for path in sorted(settings.paths.splits.glob("*.parquet"))]
    where = str(
        state_folder(settings).resolve()
    )  # Lightning's own record of the best checkpoint holds its path
    content = [values, stage_code("train"), splits, torch.__version__, L.__version__, where]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def claim(settings: Settings) -> tuple[str, str | None]:
    """Key of the run to record in: of the interrupted training that this one goes on with, or a new
    one.

    Then also the key of an interrupted run that is given up, because configuration, code or data
    are other ones now.
    """
    folder, mark = state_folder(settings), fingerprint(settings)
    try:
        found = read_json(folder / CLAIM)
    except ValueError:  # there is none
        found = {}
    if found.get("fingerprint") == mark:
        return found["key"], None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    key = new_key()
    write(folder / CLAIM, json.dumps({"fingerprint": mark, "key": key}).encode())
    return key, found.get("key")


@contextmanager
def lock(settings: Settings) -> Iterator[None]:
    """One training at a time: a killed pipeline may have left one that still works, and which DVC
    knows nothing of.
    """
    path = state_folder(settings).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path)
    try:
        held.acquire(timeout=0)
    except Timeout:
        logs.get("train").warning("another training works in this folder: waiting for it to end")
        held.acquire()
    try:
        yield
    finally:
        held.release()


def forget(settings: Settings) -> None:
    """Removes what a training that is over would have gone on from."""
    shutil.rmtree(state_folder(settings), ignore_errors=True)


def write(path: Path, content: bytes | memoryview) -> None:
    """Writes beside the target, to the disk itself, and renames: after a crash there is the old
    file or the new one.
    """
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(
            f"{path}: {error.strerror}: mend that, and the same command goes on from here"
        ) from error
    if os.name == "posix":  # the new name, too
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _digest_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


class SafeCheckpoints(TorchCheckpointIO):
    """Checkpoints with a file of their SHA-256, which is written first: it holds the old content's
    digest as well.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        digests = [hashlib.sha256(buffer.getbuffer()).hexdigest()]
        with suppress(FileNotFoundError):
            digests.append(_digest_of(path).read_text(encoding="ascii").split()[0])
        write(_digest_of(path), "\n".join(digests).encode())
        write(path, buffer.getbuffer())

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
        _digest_of(Path(path)).unlink(missing_ok=True)


def intact(path: Path) -> bool:
    """Whether a checkpoint is there as it was written."""
    try:
        return sha256(path) in _digest_of(path).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None where training must begin anew. Damaged ones are
    told and removed.
    """
    log = logs.get("train")
    best = folder / BEST
    if best.exists() and not intact(best):
        log.warning("%s is damaged: training begins anew", best)
        for path in folder.glob("*.ckpt*"):
            path.unlink()
    for path in sorted(_steps(folder), reverse=True):
        if intact(path):
            return path
        log.warning("%s is damaged: going on from the checkpoint before it", path)
        SafeCheckpoints().remove_checkpoint(path)
    return None


def _steps(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.ckpt") if path.name != BEST]


class Resume(Checkpoint):
    """Writes a checkpoint after every epoch and every so many seconds inside one, and goes on from
    one exactly there.

    Beside Lightning's own state that takes the generators of random numbers and the epoch's sums;
    the loader finds its place from Lightning's. Being a `Checkpoint`, it is called after all other
    callbacks, and so saves what they know of the same step.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds, self.saved = folder, seconds, time.monotonic()
        self.between_epochs = self.finished = False
        self.state: dict[str, Any] | None = None

    def save(self, trainer: L.Trainer, batch: int) -> None:
        trainer.save_checkpoint(
            self.folder / f"{trainer.current_epoch:06d}-{batch:09d}.ckpt", weights_only=False
        )
        self.saved = time.monotonic()
        if trainer.is_global_zero:
            for path in sorted(_steps(self.folder))[:-KEPT]:
                trainer.strategy.remove_checkpoint(path)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.state is not None:
            for name, value in self.state["sums"].items():
                setattr(module, name, value[trainer.global_rank].to(module.device))
            set_random_state(self.state["random"])

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """All of the last epoch is recorded by now, so nothing of it has to be repeated."""
        if trainer.current_epoch:
            self.between_epochs = True
            self.save(trainer, 0)
            self.between_epochs = False

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *args: Any) -> None:
        batches = trainer.fit_loop.batch_idx + 1
        due = time.monotonic() - self.saved >= self.seconds
        if trainer.world_size > 1:  # all or none; they ask each other rarely, for that costs
            due = batches % ASKED == 0 and trainer.strategy.broadcast(due)
        if due and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self.save(trainer, batches)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.finished = True
        self.save(trainer, 0)

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        sums = {name: getattr(module, name) for name in SUMS if hasattr(module, name)}
        checkpoint["resume"] = {
            "finished": self.finished,
            "random": random_state(),
            "sums": {name: of_all_ranks(value, trainer.world_size) for name, value in sums.items()},
        }
        if self.between_epochs:  # Lightning has counted the epoch to come already
            for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
                counts["ready"] = counts["completed"]

    def on_load_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.state = checkpoint["resume"]
        trainer.should_stop = checkpoint["resume"]["finished"]


def of_all_ranks(value: torch.Tensor, world: int) -> torch.Tensor:
    """[world, ...]: the tensors of all processes, since one of them writes for all."""
    found = [torch.empty_like(value) for _ in range(world)]
    if world > 1:
        torch.distributed.all_gather(found, value.contiguous())
    return torch.stack(found if world > 1 else [value])


def random_state() -> dict[str, Any]:
    """The generators of PyTorch, NumPy and Python, in types that a checkpoint may hold."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = torch.from_numpy(numpy["state"]["key"].astype(np.int64))
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": numpy,
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    numpy = state["numpy"]
    np.random.set_state(
        {
            **numpy,
            "state": {**numpy["state"], "key": numpy["state"]["key"].numpy().astype(np.uint32)},
        }
    )
    random.setstate(state["python"])

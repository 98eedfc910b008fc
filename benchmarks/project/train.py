"""Training beside a hand-written PyTorch loop: `make bench-train`.

Both fit the same network to the same tensors, in the same batches, with the same optimizer, threads
and augmentation, and both validate after every epoch. The loop by hand does nothing else. Ours does
all that it does in `make pipeline`: progress bar, metrics, records and their delivery, system
metrics, checkpoints, health, gradient norms, clipping and the schedule. One process measures all
sides, in turns; time runs from one epoch's start to the next one's.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from argparse import SUPPRESS, Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain, pairwise, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import numpy as np
import torch
import yaml
from common import ROOT, medians, module, parser, report
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from torch import nn

ROUNDS, EPOCHS = 5, 3  # of which the first is not counted
SIZES = {
    "own network": (8_192, 1_024),
    "784-64-128-64-10": (60_000, 10_000),
}  # rows to train on and to validate with
SIDES = ("cpu", "throughput")  # of configs/trainer


def bench(settings: Any, given: Namespace) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "figures.json"
            on_terminal(
                [
                    sys.executable,
                    __file__,
                    *given.overrides,
                    "--part",
                    name,
                    "--target",
                    str(target),
                ]
            )
            found = json.loads(target.read_text(encoding="utf-8"))
        figures |= {f"{name}: {key}": value for key, value in found.items()}
    return figures


def on_terminal(command: list[str]) -> None:
    """Runs a command that sees a terminal, and so shows its progress bar; what it shows is thrown
    away.
    """
    if os.name != "posix":
        subprocess.run(command, cwd=ROOT, check=True)
        return
    import pty

    ours, theirs = pty.openpty()
    shown = bytearray()

    def drain() -> None:
        try:
            while some := os.read(ours, 65_536):
                shown[:] = (shown + some)[-2000:]
        except OSError:
            return  # the other end is closed

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    reader.join(5)
    if done.returncode:
        raise ValueError(f"the measuring process failed: {shown.decode(errors='replace').strip()}")


Seconds = np.ndarray[tuple[int], np.dtype[np.float64]]
"""[2]: on the wall, and of this process on a processor, which other programs on the machine change
less.
"""


def now() -> Seconds:
    return np.array([time.perf_counter(), time.process_time()])


@dataclass
class Work:
    """What both sides fit: inputs by name [n, ...] and label [n] to train on and to validate with."""

    settings: Any
    build: Callable[[Any], Any]
    train: Any
    val: Any


def own_network(settings: Any, rows: int, val_rows: int) -> Work:
    """The project's network, on its own training and validation rows, repeated."""
    data = module("data.datamodule")

    def repeated(split: str, n: int) -> Any:
        found = data.load(settings, split)
        inputs = {name: np.resize(x, (n, *x.shape[1:])) for name, x in found.inputs.items()}
        return module("types").Examples(inputs, np.resize(found.label, n), found.rows)

    return Work(
        settings,
        module("training.fit").build_module,
        repeated("train", rows),
        repeated("val", val_rows),
    )


def reference(settings: Any, rows: int, val_rows: int) -> Work:
    """784-64-128-64-10 on random numbers, batches of 64."""
    modeling, rng = module("modeling.module"), np.random.default_rng(settings.seed)

    def random(n: int) -> Any:
        inputs = {"x": rng.random((n, 28, 28), dtype=np.float32)}
        return module("types").Examples(inputs, rng.integers(0, 10, n), None)

    changes = {
        "data": settings.data.model_copy(update={"kind": "multiclass", "labels": [str(i) for i in range(10)]}),
        "training": settings.training.model_copy(update={"batch_size": 64}),
        "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
        "augmentation": None,
    }
    return Work(
        settings.model_copy(update=changes),
        lambda s: modeling.Module(s, Dense()),
        random(rows),
        random(val_rows),
    )


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [[nn.Linear(a, b), nn.ReLU()] for a, b in pairwise((784, 64, 128, 64))]
        self.embed, self.head = nn.Sequential(nn.Flatten(), *chain(*layers)), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.embed(x)
        return self.head(embedding), embedding


WORKS = {"own network": own_network, "784-64-128-64-10": reference}


def into(folder: Path, work: Work) -> Work:
    """The same work, with everything that it writes in a folder of its own."""
    settings = work.settings
    changes = {
        "paths": settings.paths.model_copy(update={key: folder / key for key in ("state", "records", "model")}),
        "tracking": settings.tracking.model_copy(update={"uri": f"sqlite:///{folder}/mlflow.db"}),
        "trainer": settings.trainer.model_copy(update={"max_epochs": EPOCHS}),
    }
    return replace(work, settings=settings.model_copy(update=changes))


def part(settings: Any, name: str, folder: Path) -> dict[str, float]:
    """Medians over rounds in which every side takes its turn."""
    tracking, work = module("tracking"), into(folder, WORKS[name](settings, *SIZES[name]))
    rounds = []
    with tracking.start(work.settings, "bench") as run:
        for _ in range(ROUNDS):
            seconds = {f"trainer={side}": ours(work, run, side) for side in SIDES}
            hands = {
                "a loop by hand": by_hand(work),
                "one that clips and schedules": by_hand(work, whole=True),
            }
            figures = {f"{side}, rows per second": len(work.train) / t[0] for side, t in (seconds | hands).items()}
            for side, (hand, reference) in product(seconds, hands.items()):
                wall, processor = reference / seconds[side]
                figures |= {f"{side} / {hand}": wall, f"{side} / {hand}, processor time": processor}
            rounds.append(figures)
    return medians(rounds)


def ours(work: Work, run: Any, side: str) -> Seconds:
    """Of an epoch, checkpoints and records included."""
    fit, marks = module("training.fit"), Marks()
    preset = yaml.safe_load((ROOT / "configs" / "trainer" / f"{side}.yaml").read_text(encoding="utf-8"))
    changes = {key: preset[key] for key in ("batches_per_step", "log_every_n_steps") if key in preset}
    settings = work.settings.model_copy(update={"trainer": work.settings.trainer.model_copy(update=changes)})
    has_panel = patch.object(fit, "HAS_PANEL", work.val.rows is not None and fit.HAS_PANEL)  # made-up rows have none
    data = patch.object(module("data.datamodule"), "load", lambda _, split: getattr(work, split))
    build = work.build if settings.trainer.batches_per_step == 1 else chunked(work.build)
    with has_panel, data:
        fit.fit_network(settings, run, callbacks=[marks], build=build)
    return marks.seconds()


def chunked(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same network in the module that takes several batches a step."""

    def built(settings: Any) -> Any:
        plain = build(settings)
        return module("training.throughput").ChunkModule(settings, plain.network, plain.scale)

    return built


class Marks(Callback):
    """When epochs began."""

    def __init__(self) -> None:
        self.times: list[Seconds] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.times.append(now())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.times.append(now())

    def seconds(self) -> Seconds:
        return (self.times[-1] - self.times[1]) / (len(self.times) - 2)


def by_hand(work: Work, whole: bool = False) -> Seconds:
    """Of an epoch of the loop that one would write without a framework; the whole one clips and has
    a schedule.
    """
    torch.set_num_threads(work.settings.training.num_threads)
    torch.use_deterministic_algorithms(False)  # which ours has turned on, as shipped
    made = work.build(work.settings)
    network, loss_of = made.network, made.compute_loss
    optimizer = instantiate(work.settings.optimizer)(params=network.parameters())
    schedule = module("modeling.schedules").cosine_with_warmup(optimizer, 100_000, 0.1)
    augment = instantiate(work.settings.augmentation) if work.settings.augmentation else lambda inputs: inputs
    (inputs, label), (val_inputs, val_label) = (
        (tensors(x.inputs), torch.from_numpy(x.label)) for x in (work.train, work.val)
    )
    size, times = work.settings.training.batch_size, []
    for _ in range(EPOCHS):
        times.append(now())
        network.train()
        for rows in torch.split(torch.randperm(len(label)), size):
            raw, _ = network(**augment({name: x[rows] for name, x in inputs.items()}))
            loss = loss_of(raw, label[rows])
            optimizer.zero_grad()
            loss.backward()
            if whole:
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            if whole:
                schedule.step()
        network.eval()
        with torch.no_grad():
            for rows in torch.split(torch.arange(len(val_label)), size):
                raw, _ = network(**{name: x[rows] for name, x in val_inputs.items()})
                loss_of(raw, val_label[rows])
    return (now() - times[1]) / (EPOCHS - 1)


def tensors(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(x) for name, x in inputs.items()}


def measure(settings: Any, given: Namespace) -> dict[str, float]:
    if not given.part:
        return bench(settings, given)
    target = Path(given.target)
    target.write_text(json.dumps(part(settings, given.part, target.parent)), encoding="utf-8")
    sys.exit(0)


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--part", choices=WORKS, help=SUPPRESS)
    made.add_argument("--target", help=SUPPRESS)
    report("train", measure, made)

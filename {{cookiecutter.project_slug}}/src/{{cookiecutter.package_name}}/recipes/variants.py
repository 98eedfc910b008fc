"""Variants of the network side by side: each trained or measured in a child run, and a row of the
recipe's table.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import nn

from .. import tracking
from ..data.datamodule import load
from ..modeling import kinds
from ..modeling.candidates import NetworkCandidate
from ..modeling.module import Module
from ..settings import Settings
from ..training.fit import fit_network
from ..types import Examples, Rule

Row = dict[str, Any]
Inputs = dict[str, NDArray[Any]]
Raw = Callable[[Inputs], NDArray[Any]]  # raw outputs [n, ...] for model inputs by name
MANY = 256  # rows of a batch whose latency is measured


class Curve(Callback):
    """Training loss and seconds of each epoch, validation included; the first one also has what is
    done only once.
    """

    def __init__(self) -> None:
        self.losses, self.seconds, self.steps = list[float](), list[float](), 0

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.since = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        now = time.perf_counter()
        self.seconds.append(now - self.since)
        self.since, self.steps = now, trainer.global_step

    @property
    def epoch(self) -> float:
        """Seconds of an epoch, without what is done only once."""
        return statistics.median(self.seconds[1:] or self.seconds)

    def costs(self) -> Row:
        found = {"s per epoch": self.epoch, "s training": sum(self.seconds)}
        peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0
        return {**found, "MiB on GPU": peak} if peak else found


@dataclass
class Workshop:
    """What a recipe works with; `rows` begin with the plain run. Everything is written into
    `folder`, then lost.
    """

    settings: Settings
    run: tracking.Run
    folder: Path
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: bool = False

    @cached_property
    def examples(self) -> dict[str, Examples]:
        """`val`, by which you choose, and `test`, which tells what the choice is worth."""
        return {name: load(self.settings, name) for name in ("val", "test")}

    def variant(self, name: str) -> tracking.Run:
        return tracking.start(self.settings, name, parent=self.run, tags={"recipe.variant": name})

    def fit(
        self,
        run: tracking.Run,
        settings: Settings,
        build: Callable[[Settings], Module] | None = None,
    ) -> tuple[nn.Module, Curve]:
        """The trained network on the CPU, with the weights of its best epoch, and how it went."""
        own = {n: self.folder / str(len(self.rows)) / n for n in ("model", "reports", "state")}
        settings = settings.model_copy(update={"paths": settings.paths.model_copy(update=own)})
        run.params(settings.model_dump(mode="json"))
        curve = Curve()
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Found .* in eval mode at the start of training"
            )  # on purpose
            return fit_network(settings, run, callbacks=[curve], build=build).float(), curve

    def train(
        self, name: str, settings: Settings, build: Callable[[Settings], Module] | None = None
    ) -> tuple[nn.Module, Curve]:
        """Fits a variant and adds its row."""
        with self.variant(name) as run:
            network, curve = self.fit(run, settings, build)
            self.add(run, name, raw(network), {**size(network), **curve.costs()})
        return network, curve

    def add(
        self,
        run: tracking.Run,
        name: str,
        outputs: Raw,
        costs: Row,
        change: Callable[[Inputs], Inputs] = dict,
    ) -> None:
        """A row of the table: the goal's metric on the rows as `change` leaves them, and the costs."""
        kind, metric, scores = self.settings.data.kind, self.settings.data.goal.metric, {}
        for split, examples in self.examples.items():
            answers = kinds.of(kind).decide(outputs(change(examples.inputs)), Rule())
            scores[f"{split} {metric}"] = kinds.of(kind).metrics(answers, examples.label)[metric]
        run.metrics({**scores, **costs}, "recipe.")
        self.rows.append({"variant": name, **scores, **costs})


def changed(settings: Settings, group: str, **values: Any) -> Settings:
    """Settings with other values in one group."""
    return settings.model_copy(update={group: getattr(settings, group).model_copy(update=values)})


def raw(network: nn.Module) -> Raw:
    return lambda inputs: NetworkCandidate(network.eval()).outputs(inputs).raw


def size(network: nn.Module) -> Row:
    """Number of parameters, and KiB of all that is stored."""
    stored = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    return {"parameters": sum(p.numel() for p in network.parameters()), "KiB": stored / 1024}


def latency(outputs: Raw, inputs: Inputs, repeats: int = 100) -> Row:
    """Median milliseconds for one row and for a batch of MANY."""
    found = {}
    for n in (1, MANY):
        rows = {name: values[np.arange(n) % len(values)] for name, values in inputs.items()}
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            outputs(rows)
            times.append(time.perf_counter() - started)
        found[f"ms for {n}"] = 1000 * statistics.median(times)
    return found


def freeze_statistics(network: nn.Module) -> None:
    """Batch norm uses, and keeps, the statistics that it has. Lightning leaves a layer's mode as it
    finds it.
    """
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()

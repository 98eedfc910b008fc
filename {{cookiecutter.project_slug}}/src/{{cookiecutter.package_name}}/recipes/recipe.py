"""Efficiency recipes, each beside the plain run: `recipe precision`, `recipe distill
student=model.width=8`.

Trains or measures variants of the network, prints what each does to metric, size and time, writes
reports/recipe-<name>.json and records a run with a child per variant. Nothing of the pipeline
changes. Settings may follow as `trainer.max_epochs=5`, a recipe's own options as `parts=8`.
"""

import argparse
import inspect
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import logs, pages, tracking
from ..params import load
from ..provenance import write_json
from ..settings import Settings
from ..types import Examples

if TYPE_CHECKING:
    from torch import nn

    from ..modeling.module import Module

COMPOSES = True  # the name of the recipe stands where other verbs have overrides
NAMES = ("precision", "accumulation", "compile", "quantize", "distill", "lora")
BATCH = 256  # rows of a batch whose latency is measured
Row = dict[str, Any]
Inputs = dict[str, NDArray[Any]]
Raw = Callable[[Inputs], NDArray[Any]]  # raw outputs [n, ...] for model inputs by name
Build = Callable[[Settings], "Module"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's name comes first; its options and `key=value` may follow."""


def run(_: Settings | None, args: argparse.Namespace) -> int:
    name, options, overrides = parse(args.overrides)
    settings, tags = load(overrides), {"recipe": name}
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError("recipes train on one device: choose trainer.devices=1")
    with (
        logs.stage("recipe"),
        tempfile.TemporaryDirectory() as folder,
        tracking.start(settings, f"recipe {name}", tags=tags) as record,
    ):
        tracking.record_inputs(record, settings)
        variants = Variants(settings, record, Path(folder))
        find(name)(variants, **options)
        content = {"recipe": name, "options": options, "overrides": overrides}
        report(variants, content)
    return 0


def find(name: str) -> Callable[..., None]:
    """The function of a recipe: here, or `recipe` of a module beside this one."""
    if name in HERE:
        return HERE[name]
    function: Callable[..., None] = import_module(f".{name}", __package__).recipe
    return function


def parse(words: list[str]) -> tuple[str, dict[str, Any], list[str]]:
    """The recipe, its own options and the settings on a command line. Raises ValueError that names
    the recipes.
    """
    names = [word for word in words if "=" not in word]
    if len(names) != 1 or names[0] not in NAMES:
        raise ValueError(f"name one recipe: {', '.join(NAMES)}")
    defaults = {k: p.default for k, p in inspect.signature(find(names[0])).parameters.items()}
    options, overrides = {}, list[str]()
    for word in words:
        key, _, text = word.partition("=")
        if key not in defaults:
            overrides += [word] if word != names[0] else []
            continue
        try:
            options[key] = type(defaults[key])(text)
        except ValueError:
            text = f"{word}: {key} takes a number, such as {key}={defaults[key]}"
            raise ValueError(text) from None
    return names[0], options, overrides


def precision(variants: "Variants") -> None:
    """Matrix products in 16 bits, weights and sums in 32 (Micikevicius et al. 2018,
    arXiv:1710.03740). fp16, which scales the loss, needs a GPU.
    """
    import torch

    on_gpu = variants.settings.trainer.accelerator != "cpu" and torch.cuda.is_available()
    settings = variants.settings
    if "fused" in settings.optimizer:  # Lightning does not clip what a fused optimizer unscales
        optimizer = {**settings.optimizer, "fused": False}
        settings = settings.model_copy(update={"optimizer": optimizer})
    for name in ("32-true", "bf16-mixed", *(["16-mixed"] if on_gpu else [])):
        variants.train(name, changed(settings, "trainer", precision=name))


def accumulation(variants: "Variants", parts: int = 4) -> None:
    """One optimizer step for several batches, where memory does not hold them as one. Scores differ
    a little: batch norm, dropout and augmentation see each part for itself.
    """
    settings, size = variants.settings, variants.settings.training.batch_size
    if size % parts:
        text = f"a batch of {size} has no {parts} equal parts: choose parts=... or"
        raise ValueError(f"{text} training.batch_size=...")
    times = settings.trainer.accumulate_grad_batches * parts
    small = changed(settings, "training", batch_size=size // parts)
    variants.train(f"{size} at once", settings)
    variants.train(
        f"{parts} x {size // parts}", changed(small, "trainer", accumulate_grad_batches=times)
    )


HERE: dict[str, Callable[..., None]] = {"precision": precision, "accumulation": accumulation}


@dataclass
class Variants:
    """What a recipe works with; `rows` begin with the plain run. All is written into `folder`, then
    lost.
    """

    settings: Settings
    record: tracking.Run
    folder: Path
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def examples(self) -> dict[str, Examples]:
        """`val`, by which you choose, and `test`, which tells what the choice is worth."""
        from ..data.datamodule import load

        return {name: load(self.settings, name) for name in ("val", "test")}

    def fit(
        self, name: str, settings: Settings, build: Build | None = None
    ) -> "tuple[nn.Module, Row]":
        """The trained network, with the weights of its best epoch, and what training cost."""
        from lightning.pytorch.callbacks import Timer

        from ..training.fit import fit_network

        timer = Timer()
        folders = {n: self.folder / name / n for n in ("model", "reports", "state")}
        paths = settings.paths.model_copy(update=folders)
        settings = settings.model_copy(update={"paths": paths})
        with self.start(name) as record, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Found .* in eval mode")  # frozen batch norm
            record.params(settings.model_dump(mode="json"))
            network = fit_network(settings, record, callbacks=[timer], build=build).float()
        return network, {"s training": timer.time_elapsed("train")}

    def train(self, name: str, settings: Settings, build: Build | None = None) -> Row:
        """Fits a variant and adds its row."""
        network, costs = self.fit(name, settings, build)
        return self.add(name, raw(network), size(network) | costs)

    def start(self, name: str) -> tracking.Run:
        """The child run of a variant; again, to add to it."""
        tags = {"recipe.variant": name}
        key = f"{self.record.key}-{name}".replace(" ", "-")
        return tracking.start(self.settings, name, self.record, tags, key)

    def add(
        self,
        name: str,
        outputs: Raw,
        costs: Row,
        change: Callable[[Inputs], Inputs] = dict,
        file: Path | None = None,
    ) -> Row:
        """A row: the goal's metric on the rows as `change` leaves them, and the costs."""
        from ..modeling import kinds
        from ..types import Rule

        kind, metric = kinds.of(self.settings.data.kind), self.settings.data.goal.metric
        scores: Row = {}
        for split, examples in self.examples.items():
            answers = kind.decide(outputs(change(examples.inputs)), Rule())
            scores[f"{split} {metric}"] = kind.metrics(answers, examples.label)[metric]
        with self.start(name) as record:
            record.metrics({**scores, **costs}, "recipe.")
            record.artifacts([file] if file else [], "model")
        self.rows.append({"variant": name, **scores, **costs})
        return self.rows[-1]


def changed(settings: Settings, section: str, **values: Any) -> Settings:
    """Settings with other values in one section."""
    part = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: part})


def trained(settings: Settings) -> "nn.Module":
    """The network of artifacts/model."""
    from ..modeling import candidates

    network = candidates.load(settings)["network"]
    assert isinstance(network, candidates.NetworkCandidate)
    return network.network


def raw(network: "nn.Module") -> Raw:
    from ..modeling.candidates import NetworkCandidate

    return lambda inputs: NetworkCandidate(network.eval()).outputs(inputs).raw


def size(network: "nn.Module") -> Row:
    """Number of parameters, and KiB of all that is stored."""
    stored = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    return {"parameters": sum(p.numel() for p in network.parameters()), "KiB": stored / 1024}


def latency(outputs: Raw, inputs: Inputs, repeats: int = 100) -> Row:
    """Median milliseconds for one row and for a batch."""
    medians = {}
    for n in (1, BATCH):
        rows = {name: values[np.arange(n) % len(values)] for name, values in inputs.items()}
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            outputs(rows)
            times.append(time.perf_counter() - started)
        medians[f"ms for {n}"] = 1000 * statistics.median(times)
    return medians


def report(variants: Variants, content: dict[str, Any]) -> None:
    """The table and the notes: on the terminal, in reports/ and in the tracker."""
    path = variants.settings.paths.reports / f"recipe-{content['recipe']}.json"
    content |= {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(path, {**content, "rows": variants.rows, "notes": variants.notes})
    variants.record.artifacts([path], "reports")
    plain = variants.rows[0]
    columns = list(dict.fromkeys(key for row in variants.rows for key in row))
    rows = [[cell(row, plain, key) for key in columns] for row in variants.rows]
    pages.print_table(f"recipe {content['recipe']}", columns, rows)
    print("\n".join(variants.notes))


def cell(row: Row, plain: Row, key: str) -> str:
    """A figure and, beside it, its difference (scores) or ratio (costs) to the plain run."""
    value, base = row.get(key, "-"), plain.get(key)
    if isinstance(value, str):
        return value
    text = f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if row is plain or not base:
        return text
    scored = key.startswith(("val ", "test "))
    return text + (f" ({value - base:+.4f})" if scored else f" (x{value / base:.2f})")

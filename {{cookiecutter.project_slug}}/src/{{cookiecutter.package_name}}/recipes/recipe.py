"""Efficiency recipes, each beside the plain run: `recipe precision`, `recipe distill
student=model.width=8`.

Trains or measures variants of the network, prints what each does to metric, size and time, writes
reports/recipe-<name>.json and records a run with a child per variant. Nothing of the pipeline
changes. Settings may follow as `trainer.max_epochs=5`, a recipe's own options as `parts=8`.
"""

import argparse
import inspect
import tempfile
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import glance, logs, pages, tracking
from ..params import check_trainable, load
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
    settings = load(overrides)
    tags = {"recipe": name}
    check_trainable(settings)
    with (
        logs.stage("recipe"),
        tempfile.TemporaryDirectory() as folder,
        tracking.start(settings, f"recipe {name}, {glance.title(settings)}", tags=tags) as record,
    ):
        tracking.record_inputs(record, settings)
        variants = Variants(settings, record, Path(folder))
        find(name)(variants, **options)
        content = {"recipe": name, "options": options, "overrides": overrides}
        path = settings.paths.reports / f"recipe-{name}.json"
        write_json(path, content | {"rows": variants.rows})
        record.artifacts([path], "reports")
        table = pages.table(variants.rows)
        pages.print_table(f"recipe {name}", table.columns, table.rows)
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
    parameters = inspect.signature(find(names[0])).parameters
    given = dict(word.split("=", 1) for word in words if "=" in word)
    options = {key: given.pop(key) for key in parameters.keys() & given.keys()}
    values = {key: type(parameters[key].default)(text) for key, text in options.items()}
    return names[0], values, [f"{key}={text}" for key, text in given.items()]


def precision(variants: "Variants") -> None:
    """Matrix products in 16 bits, weights and sums in 32 (Micikevicius et al. 2018,
    arXiv:1710.03740). fp16, which scales the loss, needs a GPU.
    """
    import torch

    settings = variants.settings
    names = ["32-true", "bf16-mixed"]
    if settings.trainer.accelerator != "cpu" and torch.cuda.is_available():
        names.append("16-mixed")
    if "fused" in settings.optimizer:  # Lightning does not clip what a fused optimizer unscales
        settings = settings.model_copy(update={"optimizer": settings.optimizer | {"fused": False}})
    for name in names:
        variants.train(name, settings.changed("trainer", precision=name))


def accumulation(variants: "Variants", parts: int = 4) -> None:
    """One optimizer step for several batches, where memory does not hold them as one. Scores differ
    a little: batch norm, dropout and augmentation see each part for itself.
    """
    settings = variants.settings
    size = variants.settings.training.batch_size
    if size % parts:
        text = f"a batch of {size} has no {parts} equal parts: choose parts=... or"
        raise ValueError(f"{text} training.batch_size=...")
    times = settings.trainer.accumulate_grad_batches * parts
    small = settings.changed("training", batch_size=size // parts)
    variants.train(f"{size} at once", settings)
    small = small.changed("trainer", accumulate_grad_batches=times)
    variants.train(f"{parts} x {size // parts}", small)


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

    def examples(self, split: str) -> Examples:
        from ..data.datamodule import load

        return load(self.settings, split)

    def fit(
        self, name: str, settings: Settings, build: Build | None = None
    ) -> "tuple[nn.Module, Row]":
        """The trained network, with the weights of its best epoch, and what training cost."""
        from lightning.pytorch.callbacks import Timer

        from ..training.fit import fit_network

        timer = Timer()
        with self.start(name) as record:
            record.params(settings.model_dump(mode="json"))
            tracking.record_data(record, settings)
            settings = settings.below(self.folder / name)
            network = fit_network(settings, record, callbacks=[timer], build=build).float()
        return network, {"s training": timer.time_elapsed("train")}

    def train(self, name: str, settings: Settings, build: Build | None = None) -> None:
        """Fits a variant and adds its row."""
        network, costs = self.fit(name, settings, build)
        self.add(name, raw(network), size(network) | costs)

    def start(self, name: str) -> tracking.Run:
        """The child run of a variant; again, to add to it."""
        tags = {"recipe.variant": name}
        key = f"{self.record.key}-{name}".replace(" ", "-")
        title = f"recipe variant {name} on {self.settings.data.name}"
        return tracking.start(self.settings, title, self.record, tags, key)

    def add(
        self,
        name: str,
        outputs: Raw,
        costs: Row,
        change: Callable[[Inputs], Inputs] = dict,
        file: Path | None = None,
    ) -> None:
        """A row: the goal's metric on the rows as `change` leaves them, and the costs. `val` is for
        choosing, `test` tells what the choice is worth.
        """
        from ..modeling import kinds
        from ..types import Rule

        kind = kinds.of(self.settings.data.kind)
        metric = self.settings.data.goal.metric
        row: Row = {}
        for split in ("val", "test"):
            examples = self.examples(split)
            answers = kind.decide(outputs(change(examples.inputs)), Rule())
            row[f"{split} {metric}"] = kind.metrics(answers, examples.label)[metric]
        row |= costs
        with self.start(name) as record:
            record.metrics(row, "recipe.")
            record.artifacts([file] if file else [], "model")
        self.rows.append({"variant": name, **row})


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


def latency(outputs: Raw, inputs: Inputs) -> Row:
    """Median milliseconds for one row and for a batch."""
    row = {}
    for n in (1, BATCH):
        batch = {name: np.resize(values, (n, *values.shape[1:])) for name, values in inputs.items()}
        times = timeit.repeat(lambda: outputs(batch), number=1, repeat=100)  # noqa: B023
        row[f"ms for {n}"] = 1000 * median(times)
    return row

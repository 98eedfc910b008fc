"""T5: watches training, and says what goes wrong: in the log when it first shows, in a table at the
end. Measured once an epoch, from what is logged anyway, the last step and one validated batch.
"""

import json
import math
import sys
import time
from typing import Any

import psutil
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from .. import logs, pages
from ..modeling.module import Module
from ..settings import Settings
from ..tracking import Run
from .signs import LOGGED, MUCH, SIGNS, Epoch, Numbers, beyond, measure

CANNOT_TELL = (
    ", but {:.0%} of a constant answer's error is left on the training rows: wrong labels, inputs"
    " that say too little, too strong an augmentation and a network too small look the same in the"
    " numbers"
)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
LOOK = 50  # steps between two looks at the loss, for which a GPU must wait
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU)
STATE = ("history", "start_loss", "start_size", "since", "warned", "numbers")


class Health(Callback):
    """Warns of a sign when it first shows, and raises ValueError once a loss is not finite."""

    def __init__(self, settings: Settings, run: Run | None = None) -> None:
        self.run = run
        self.limits = settings.health.model_dump()
        self.history: list[Epoch] = []
        self.start_loss: float | None = None  # of the first step
        self.start_size: float | None = None  # of all weights
        self.warned: list[str] = []  # signs that were named
        self.since: dict[str, int] = {}  # the epoch since when each sign shows
        self.numbers: Numbers = {}  # of each sign
        self.epoch: Epoch = {}  # what is measured in the one that runs

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.epoch = {}
        self.rows = 0
        self.clock = time.perf_counter()
        self.before = weights(module)[-1].detach().clone()
        if self.start_size is None:
            self.start_size = nn.utils.get_total_norm(weights(module)).item()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, module)  # inside an epoch that a checkpoint goes on with

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.rows += len(batch["label"])
        if self.start_loss is None:
            self.start_loss = float(outputs["loss"])
        if trainer.is_last_batch:  # validation will clear the gradients
            self.epoch |= measure_layers(weights(module), self.before)
            size = nn.utils.get_total_norm(weights(module)).item()
            self.epoch["size"] = size / (self.start_size or 1.0)
            self.epoch["seconds"] = time.perf_counter() - self.clock
        if trainer.is_last_batch or trainer.global_step % LOOK == 0:
            self.check(trainer, outputs["loss"])

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # What cannot go on must not become a checkpoint.
        self.check(trainer, torch.stack([p.detach().sum() for p in module.parameters()]).sum())

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *place: int
    ) -> None:
        if place[0] == 0:
            self.epoch["dead"] = dead_units(module, batch["inputs"])

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Module)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "train/loss" not in logged:
            return  # resumed behind the last batch of an epoch
        memory = psutil.Process().memory_info().rss + torch.cuda.max_memory_allocated()
        error = module.kind.training_error(logged["train/loss"], logged[module.score])
        dropped = [layer.p for layer in module.modules() if isinstance(layer, DROPOUTS)]
        self.epoch |= {"memory": float(memory), "error": error, "dropped": max(dropped, default=0)}
        values = torch.tensor([*self.epoch.values()], device=module.device)
        mean = trainer.strategy.reduce(values, reduce_op="mean")  # over all processes
        self.epoch = dict(zip(self.epoch, mean.tolist(), strict=True))
        names = [name for name in (*LOGGED, module.score) if name in logged]
        self.history.append(self.epoch | {name: logged[name] for name in names})
        speed = self.rows * trainer.world_size / self.epoch["seconds"]
        module.log("train/samples_per_second", speed)
        self.warn(trainer, module)

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.warn(trainer, module, ended=True)
        self.record()
        rows = [row for row in self.report() if row["epoch"]]
        if trainer.is_global_zero and rows:
            table = pages.table(rows)
            pages.print_table("health", table.columns, table.rows, stderr=True)
        elif trainer.is_global_zero:
            left = self.numbers["underfitting"] or 0.0
            unsure = CANNOT_TELL.format(left) if left > MUCH else ""
            print(f"  health: nothing to report{unsure}", file=sys.stderr)

    def check(self, trainer: Trainer, value: Tensor) -> None:
        """Raises ValueError where the value is not finite in one of the processes."""
        if math.isfinite(float(trainer.strategy.reduce(value, reduce_op="mean"))):
            return
        epoch = trainer.current_epoch + 1
        self.numbers = {"not_finite": 1.0}
        self.since = {"not_finite": epoch}
        self.record()
        where = f"in epoch {epoch}, by step {trainer.global_step}"
        raise ValueError(f"the loss is not finite {where}: try {SIGNS['not_finite'][1]}")

    def warn(self, trainer: Trainer, module: LightningModule, ended: bool = False) -> None:
        """One line in the log for what begins to show."""
        assert isinstance(module, Module)
        if not self.history:
            return
        constant = module.kind.constant_loss(module.loss, len(module.settings.data.labels))
        self.numbers = measure(self.history, self.start_loss or 0.0, constant)
        before = self.since
        signs = beyond(self.numbers, self.limits, ended)
        self.since = {sign: before.get(sign, len(self.history)) for sign in signs}
        for row in self.report() if trainer.is_global_zero else []:
            if row["sign"] in self.since and row["sign"] not in self.warned:
                self.warned.append(row["sign"])
                text = "health: {sign} in epoch {epoch}: {number:.3g} (limit {limit:.3g}), "
                logs.get("train").warning((text + "{meaning}; try {try}").format(**row))

    def record(self) -> None:
        if self.run:
            measured = {sign: n for sign, n in self.numbers.items() if n is not None}
            self.run.metrics(measured, "health.")
            self.run.text(json.dumps(self.report(), indent=2), "health/health.json")

    def report(self) -> list[dict[str, Any]]:
        """A row per sign: its number, or None where it was not measured; its limit; the epoch since
        when it shows, or None; what it means, and what to try.
        """
        return [
            {
                "sign": sign,
                "number": self.numbers.get(sign),
                "limit": self.limits[sign],
                "epoch": self.since.get(sign),
                "meaning": meaning,
                "try": remedy,
            }
            for sign, (meaning, remedy) in SIGNS.items()
        ]


def weights(module: LightningModule) -> list[nn.Parameter]:
    """Matrices and kernels that are trained, in the order of their layers."""
    return [p for p in module.parameters() if p.requires_grad and p.ndim > 1]


def rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def measure_layers(layers: list[nn.Parameter], before: Tensor) -> Epoch:
    """Gradient of the first layer as a share of the last one's, and how far the last moved, as a
    share of its size.
    """
    size = rms(before).clamp(min=0.01)  # some start from zero
    epoch = {"moved": float(rms(layers[-1].detach() - before) / size)}
    gradients = [rms(w.grad) for w in layers if w.grad is not None]
    if len(gradients) > 1 and gradients[-1] > 0:
        epoch["first"] = float(gradients[0] / gradients[-1])
    return epoch


def dead_units(module: LightningModule, inputs: dict[str, Tensor]) -> float:
    """Share of units of the worst layer whose output never leaves (-0.01, 0]: flat in ReLU, and
    next to flat in SiLU and GELU. A unit is a channel of [n, c, h, w], a feature of [n, c] or of
    [n, t, c].
    """
    shares = [0.0]

    def look(layer: nn.Module, _: Any, output: Tensor) -> None:
        units = (output if output.ndim == 3 else output.movedim(1, -1)).flatten(0, -2)
        shares.append(float(((units <= 0) & (units > -0.01)).all(dim=0).float().mean()))

    layers = [layer for layer in module.modules() if isinstance(layer, ACTIVATIONS)]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    with torch.compiler.set_stance("force_eager"):  # else a hook has a network compiled again
        module(inputs)
    for hook in hooks:
        hook.remove()
    return max(shares)

"""T5: watches training, and says what goes wrong: in the log when it first shows, in a table at the
end. Measured once an epoch, from what is logged anyway, the last step and one validated batch.
"""

import json
import math
import sys
import time
from typing import Any

import pandas as pd
import psutil
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from .. import logs, pages
from ..modeling.module import Module
from ..settings import Settings
from ..tracking import Run

# What the number of a sign means, and what to try; `health` in the configuration has the limits.
SIGNS = {
    "not_finite": (
        "a loss or weight that is NaN or infinite: training ends",
        "a tenth of optimizer.lr, trainer.gradient_clip_val=1, or `train debug=anomaly`, which"
        " names the operation: a log or root of 0, a division by 0, NaN in the inputs",
    ),
    "learning_rate_high": (
        "rise of the training loss above its start, as a share of that or of a constant answer's:"
        " steps overshoot",
        "a tenth of optimizer.lr, or a longer warm-up",
    ),
    "exploding_gradients": (
        "mean gradient norm in an epoch, before clipping: a few steep places decide where the"
        " weights go",
        "smaller initial weights, normalised inputs or layers, trainer.gradient_clip_val=1",
    ),
    "dead_units": (
        "share of the units of the worst layer that are off for every row of a batch: they cannot"
        " learn",
        "initial biases of zero, SiLU or GELU instead of ReLU, a lower optimizer.lr",
    ),
    "vanishing_gradients": (
        "gradient of the first layer as a share of the last one's: early layers do not learn",
        "ReLU or SiLU instead of sigmoid or tanh, normalisation layers, residual connections,"
        " fewer layers",
    ),
    "learning_rate_low": (
        "most that the last layer moved in an epoch, as a share of its size, while the loss hardly"
        " fell",
        "ten times optimizer.lr",
    ),
    "loss_spike": (
        "share of what training had gained that one epoch lost again",
        "a lower optimizer.lr, trainer.gradient_clip_val=1, a look at the rows of that epoch",
    ),
    "underfitting": (
        "error on the training rows at the end, as a share of a constant answer's",
        "a larger network, less regularisation, a higher optimizer.lr, inputs that say more",
    ),
    "overfitting": (
        "validation loss above its best, in losses of a constant answer, while the training loss"
        " fell",
        "more data or augmentation, dropout, weight decay, a smaller network; the best epoch's"
        " weights are kept",
    ),
    "slower": (
        "rows per second in the last epochs, as a share of the fastest ones'",
        "without another program on this machine; look for a hot device, data that are no longer"
        " cached",
    ),
    "memory_growing": (
        "growth of the memory in use since the third epoch, as a share",
        "a look for tensors kept from step to step: store `.item()` or `.detach()` of them",
    ),
}
# Many numbers move when one thing breaks. Of these, from causes to what follows from them, only the
# first is named: put it right, and look again.
CHAIN = list(SIGNS)[:8]
DESTROYED = CHAIN[:3]  # after these, nothing else that was measured tells anything
BELOW = ("vanishing_gradients", "learning_rate_low", "slower")  # named below their limit
LOGGED = ("train/loss", "val/loss", "train/gradient_norm")
MEASURED = [*LOGGED, "error", "dead", "moved", "first", "seconds", "memory"]  # in each epoch
SECONDS = 10.0  # the speed of three epochs shorter than that tells of other programs
LOOK = 50  # steps between two looks at the loss, for which a GPU must wait
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU)
STATE = ("history", "start_loss", "since", "numbers")
Epoch = dict[str, float]
Numbers = dict[str, float | None]


class Health(Callback):
    """Warns of a sign when it first shows, and raises ValueError once a loss is not finite."""

    def __init__(self, settings: Settings, run: Run | None = None) -> None:
        self.run = run
        self.limits = settings.health.model_dump()
        self.history: list[Epoch] = []
        self.start_loss: float | None = None  # of the first step
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

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.on_train_epoch_start(trainer, module)  # inside an epoch that a checkpoint goes on with

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.rows += len(batch["label"])
        if self.start_loss is None:
            self.start_loss = float(outputs["loss"])
        if trainer.is_last_batch:  # validation will clear the gradients
            self.epoch = measure_layers(weights(module), self.before)
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
        self.epoch |= {"memory": float(memory), "error": error}
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
            print("  health: nothing to report", file=sys.stderr)

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
            if row["sign"] in self.since.keys() - before.keys():
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


def measure(history: list[Epoch], start_loss: float, constant: float) -> Numbers:
    """The number of each sign, None where it could not be measured; `constant` is the loss of an
    answer that knows nothing.
    """
    epochs = pd.DataFrame(history).reindex(columns=MEASURED)  # not-a-number where not measured
    loss = epochs["train/loss"]
    val = epochs["val/loss"]
    last = epochs.iloc[-1]
    lowest = loss.cummin().shift()  # before each epoch
    gained = loss[0] - lowest
    lost = ((loss - lowest) / gained).clip(lower=0)
    falling = (loss[val == val.min()] > last["train/loss"]).any()  # since the best epoch
    triples = epochs["seconds"].rolling(3).median()
    memory = epochs["memory"].iloc[2:3].mean()
    numbers = {
        "not_finite": 0.0,
        "learning_rate_high": loss.max() / max(start_loss, constant) - 1,
        "exploding_gradients": epochs["train/gradient_norm"].max(),
        "dead_units": last["dead"],
        "vanishing_gradients": last["first"],
        "learning_rate_low": epochs["moved"].max(),
        "loss_spike": lost[gained > 0.1 * constant].max(),
        "underfitting": last["error"] / constant,
        "overfitting": (val.tail(3).min() - val.min()) / constant * falling,
        "slower": triples.min() / triples.iloc[-1],
        "memory_growing": last["memory"] / memory - 1,
    }
    if len(history) < 3:
        del numbers["learning_rate_low"]  # it may have to warm up
    if epochs["seconds"].tail(3).sum() < SECONDS:
        del numbers["slower"]
    return {sign: None if math.isnan(number) else float(number) for sign, number in numbers.items()}


def beyond(numbers: Numbers, limits: Epoch, ended: bool) -> list[str]:
    """The signs beyond their limits, without those that follow from one before them."""
    signs = []
    for sign, number in numbers.items():
        side = -1 if sign in BELOW else 1
        if number is not None and side * number > side * limits[sign]:
            signs.append(sign)
    if "underfitting" in signs and not ended:
        signs.remove("underfitting")  # true of any training that has only begun
    if "learning_rate_low" in signs and (numbers["underfitting"] or 0.0) < 0.5:
        signs.remove("learning_rate_low")  # there was little to learn
    cause = [sign for sign in CHAIN if sign in signs][:1]
    if set(cause) & set(DESTROYED):
        return cause
    return cause + [sign for sign in signs if sign not in CHAIN]

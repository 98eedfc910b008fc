"""T5: watches training, and says what goes wrong: in the log when it first shows, in a table at the
end. Measured once an epoch, from what is logged anyway, the last step and one validated batch.
"""

import json
import math
import time
from statistics import median
from typing import Any

import lightning as L
import psutil
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import logs
from ..modeling.module import Module
from ..settings import Settings
from ..tracking import Run

# What the number of a sign means, and what to try; `health` in the configuration has the limits.
SIGNS = {
    "not_finite": (
        "losses that were NaN or infinite, where gradients before had their usual size",
        "`train debug=anomaly`, which names the operation: a log or root of 0, a division by 0,"
        " NaN in the inputs",
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
SECONDS = 10.0  # the speed of three epochs shorter than that tells of other programs
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU)
Epoch = dict[str, float]


class Health(Callback):
    """Warns of a sign when it first shows, and raises ValueError once a loss is not finite."""

    def __init__(self, settings: Settings, run: Run | None = None) -> None:
        self.run, self.limits = run, settings.health.model_dump()
        self.history: list[Epoch] = []
        self.constant = 0.0  # loss of a constant answer, once it is known
        self.since: dict[str, int] = {}  # the epoch since when each sign shows
        self.warned: list[str] = []
        self.numbers: dict[str, float | None] = {}  # by sign
        self.first: Epoch = {}  # of the first step
        self.layers: Epoch = {}  # of the last step of the epoch
        self.rows, self.start = 0, 0.0
        self.before: Tensor | None = None  # weights of the last layer when the epoch began
        self.labels, self.dead, self.hooks = list[Tensor](), list[Tensor](), list[RemovableHandle]()

    def state_dict(self) -> dict[str, Any]:
        # Without what tells of the machine: checkpoints of the same training are the same.
        machine = ("memory", "seconds")
        history = [{k: v for k, v in e.items() if k not in machine} for e in self.history]
        names = ("constant", "since", "warned", "first")
        return {"history": history, **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.rows, self.start = 0, time.perf_counter()
        self.before = weights(module)[-1].detach().clone()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.rows += len(batch["label"])
        if not self.first:
            layers = measure_layers(weights(module), self.before)
            self.first = {"loss": float(outputs["loss"]), "moved": layers.get("moved", 0.0)}
        if trainer.is_last_batch:  # validation will clear the gradients
            self.layers = measure_layers(weights(module), self.before)
            self.layers["seconds"] = (time.perf_counter() - self.start) / self.rows
        if trainer.global_step % max(1, trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            self.check(trainer, outputs["loss"])

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # What cannot go on must not become a checkpoint.
        self.check(trainer, torch.stack([p.detach().sum() for p in module.parameters()]).sum())

    def on_validation_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if not self.constant and not trainer.sanity_checking:
            self.labels.append(batch["label"].cpu())
        if batch_idx == 0:
            self.dead = []
            layers = [part for part in module.modules() if isinstance(part, ACTIVATIONS)]
            self.hooks = [layer.register_forward_hook(self.look) for layer in layers]

    def look(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.dead.append(dead_share(output))

    def on_validation_batch_end(self, *_: Any) -> None:
        while self.hooks:
            self.hooks.pop().remove()

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Module)
        if self.labels:
            self.constant = module.kind.constant_loss(module.loss, torch.cat(self.labels))
            self.labels.clear()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Module)
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if "train/loss" not in values:
            return  # resumed behind the last batch of an epoch
        self.check(trainer, torch.tensor(values["train/loss"] + values.get("val/loss", 0.0)))
        epoch = {"loss": values["train/loss"], "score": values[module.score], **self.layers}
        epoch["memory"] = float(psutil.Process().memory_info().rss)
        epoch["memory"] += torch.cuda.max_memory_allocated()
        if "val/loss" in values:
            epoch["val"] = values["val/loss"]
        if self.dead:
            epoch["dead"] = float(torch.stack(self.dead).max())
        own = torch.tensor(list(epoch.values()), dtype=torch.float32, device=module.device)
        mean = trainer.strategy.reduce(own, reduce_op="mean").tolist()
        self.history.append(
            {
                **dict(zip(epoch, mean, strict=True)),
                "gradient": values["train/gradient_norm"],
            }
        )
        if "seconds" in epoch:
            module.log("train/samples_per_second", trainer.world_size / epoch["seconds"])
        self.warn(trainer, module)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Module)
        self.warn(trainer, module, ended=True)
        if trainer.is_global_zero:
            self.record()
            show(self.report())

    def check(self, trainer: L.Trainer, value: Tensor) -> None:
        """Raises ValueError where the value is not finite in one of the processes, with the cause
        as far as steps before it tell.
        """
        if math.isfinite(float(trainer.strategy.reduce(value, reduce_op="mean"))):
            return
        norms = [epoch["gradient"] for epoch in self.history]
        sign = "not_finite"
        if self.first.get("moved", 0.0) > 1:
            sign = "learning_rate_high"
        elif norms and max(norms) > self.limits["exploding_gradients"]:
            sign = "exploding_gradients"
        self.since = {sign: trainer.current_epoch + 1}
        self.record()
        where = f"epoch {trainer.current_epoch + 1}, by step {trainer.global_step}"
        name = sign.replace("_", " ")
        raise ValueError(f"the loss is not finite in {where} ({name}): try {SIGNS[sign][1]}")

    def warn(self, trainer: L.Trainer, module: Module, ended: bool = False) -> None:
        """One line in the log for what shows now and never did before."""
        self.numbers = numbers(self.history, self.first, self.constant or 1.0, module)
        signs = beyond(self.numbers, self.limits, ended)
        self.since = {sign: self.since.get(sign, len(self.history)) for sign in signs}
        for row in self.report():
            if row["epoch"] and row["sign"] not in self.warned and trainer.is_global_zero:
                self.warned.append(row["sign"])
                text = "health: {sign} in epoch {epoch}: {number:.3g} (limit {limit:.3g}), {meaning}; try {try}"
                logs.get("train").warning(text.format(**row))

    def record(self) -> None:
        if self.run:
            report = self.report()
            numbers = {r["sign"]: r["number"] for r in report if r["number"] is not None}
            self.run.metrics(numbers, "health.")
            self.run.text(json.dumps(report, indent=2), "health/health.json")

    def report(self) -> list[dict[str, Any]]:
        """A row per sign: number, limit, the epoch since when it shows or None, what it means, what
        to try.
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


def weights(module: L.LightningModule) -> list[nn.Parameter]:
    """Matrices and kernels that are trained, in the order of their layers."""
    return [p for p in module.parameters() if p.requires_grad and p.ndim > 1]


def measure_layers(layers: list[nn.Parameter], before: Tensor | None) -> Epoch:
    """Gradient of the first layer as a share of the last one's, and how far the last moved, as a
    share of its size.
    """
    measured: Epoch = {}
    gradients = [w.grad.square().mean().sqrt() for w in layers if w.grad is not None]
    if len(gradients) > 1 and float(gradients[-1]) > 0:
        measured["first"] = float(gradients[0] / gradients[-1])
    if before is not None:
        size = before.square().mean().sqrt().clamp(min=0.01)  # some start from zero
        measured["moved"] = float((layers[-1].detach() - before).square().mean().sqrt() / size)
    return measured


def dead_share(output: Tensor) -> Tensor:
    """Share of units whose output never leaves (-0.01, 0]: flat in ReLU, and next to flat in SiLU
    and GELU. A unit is a channel of [n, c, h, w] or a feature of [n, c] and [n, t, c].
    """
    units = (output if output.ndim == 3 else output.movedim(1, -1)).flatten(0, -2)
    return ((units <= 0) & (units > -0.01)).all(dim=0).float().mean()


def numbers(
    history: list[Epoch], first: Epoch, constant: float, module: Module
) -> dict[str, float | None]:
    """The number of each sign, None where it could not be measured; `first` is of the first step,
    `constant` the loss of a constant answer.
    """

    def series(key: str) -> list[float]:
        return [epoch[key] for epoch in history if key in epoch]

    if not history:
        return {}
    loss, val = ([value / constant for value in series(key)] for key in ("loss", "val"))
    seconds, memory, moved, last = series("seconds"), series("memory"), series("moved"), history[-1]
    start = max(first["loss"] / constant, 1.0)
    timed = sum(seconds[-3:]) > SECONDS
    return {
        "not_finite": 0.0,
        "learning_rate_high": max(loss) / start - 1,
        "exploding_gradients": max(series("gradient")),
        "dead_units": last.get("dead"),
        "vanishing_gradients": last.get("first"),
        "learning_rate_low": max(moved) if len(moved) > 2 else None,  # it may have to warm up
        "loss_spike": largest_rise(loss),
        "underfitting": module.kind.training_error(loss[-1], last["score"]),
        "overfitting": rise_since_best(loss, val) if val else None,
        "slower": fastest(seconds) / median(seconds[-3:]) if timed else None,
        "memory_growing": memory[-1] / memory[2] - 1 if len(memory) > 3 else None,
    }


def beyond(values: dict[str, float | None], limits: Epoch, ended: bool) -> list[str]:
    """The signs beyond their limits, without those that follow from one before them."""
    signs = []
    for sign, number in values.items():
        direction = -1 if sign in BELOW else 1
        if number is not None and direction * (number - limits[sign]) > 0:
            signs.append(sign)
    if "underfitting" in signs and not ended:
        signs.remove("underfitting")  # true of any training that has only begun
    if "learning_rate_low" in signs and (values["underfitting"] or 0.0) < 0.5:
        signs.remove("learning_rate_low")  # there was little to learn
    cause = [sign for sign in CHAIN if sign in signs][:1]
    if set(cause) & set(DESTROYED):
        return cause
    return cause + [sign for sign in signs if sign not in CHAIN]


def largest_rise(loss: list[float]) -> float:
    """Largest rise of the loss over its best before, as a share of the fall until then; 0 where it
    hardly fell.
    """
    largest, best = 0.0, loss[0]
    for value in loss:
        if loss[0] - best > 0.1:
            largest = max(largest, (value - best) / (loss[0] - best))
        best = min(best, value)
    return largest


def rise_since_best(loss: list[float], val: list[float]) -> float:
    """How far the last three validation losses all lie above the best; 0 where the training loss
    did not fall since.
    """
    return min(val[-3:]) - min(val) if loss[-1] < loss[val.index(min(val))] else 0.0


def fastest(seconds: list[float]) -> float:
    """Median of the fastest three epochs in a row."""
    return min(median(seconds[i : i + 3]) for i in range(max(1, len(seconds) - 2)))


def show(report: list[dict[str, Any]]) -> None:
    """The signs that show, as a table on the terminal; one line where there are none."""
    from rich.console import Console
    from rich.table import Table

    console, rows = Console(stderr=True), [row for row in report if row["epoch"]]
    if not rows:
        console.print("  health: nothing to report")
        return
    table = Table("sign", "since", "number", "limit", "what it is, and what to try", title="health")
    for row in rows:
        numbers = (str(row["epoch"]), f"{row['number']:.3g}", f"{row['limit']:.3g}")
        table.add_row(row["sign"], *numbers, f"{row['meaning']}: try {row['try']}")
    console.print(table)

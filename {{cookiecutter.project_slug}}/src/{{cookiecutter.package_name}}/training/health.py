"""T5: watches training, and says what goes wrong: in the log when it first shows, in a table at the
end.

Measured once an epoch, from sums that the module keeps and a batch that is validated anyway: no
step waits for the device. `signs` judges what was measured.
"""

import json
import math
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
from .signs import SIGNS, Epoch, beyond, numbers

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU)
BEYOND = torch.finfo(torch.float32).max  # stands for a loss that left the range of numbers


class Health(Callback):
    """Warns of a sign when it first shows, and raises ValueError once a loss is not finite."""

    def __init__(self, settings: Settings, run: Run | None = None) -> None:
        self.run = run
        self.limits, self.labels = settings.health.model_dump(), len(settings.data.labels)
        self.history: list[Epoch] = []  # of the first step, then of each epoch
        self.unit = 0.0  # loss of a constant answer, once it is known
        self.named: dict[str, int] = {}  # sign, and the epoch since when it shows
        self.warned: list[str] = []
        self.layers: Epoch = {}
        self.before, self.dead, self.answers = list[Tensor](), list[Tensor](), list[Tensor]()
        self.hooks: list[RemovableHandle] = []

    def state_dict(self) -> dict[str, Any]:
        # Without what tells of the machine: checkpoints of the same training are the same.
        kept = [
            {k: v for k, v in e.items() if k not in ("memory", "seconds", "wait")}
            for e in self.history
        ]
        return {"history": kept, "unit": self.unit, "named": self.named, "warned": self.warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.before = [weight.detach().clone() for weight in _weights(module)[-1:]]

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        assert isinstance(module, Module)
        if not self.history and module.gradient[2] > 0:
            step = _layers(_weights(module), self.before).get("moved", 0.0)
            self.history.append(
                {"loss": _mean(module.seen), "gradient": _mean(module.gradient), "step": step}
            )
        if trainer.global_step % max(1, trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            self._check(trainer, module, float(module.seen[0]))
        if trainer.is_last_batch:  # validation will clear the gradients
            self.layers = _layers(_weights(module), self.before)

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(module, Module)  # what cannot go on must not become a checkpoint
        self._check(
            trainer,
            module,
            float(module.seen[0]),
            *(float(p.detach().sum()) for p in module.parameters()),
        )

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not self.unit and not trainer.sanity_checking:
            self.answers.append(batch["label"].cpu())
        if batch_idx == 0:
            self.dead, parts = [], list(module.modules())
            if any(
                part._compiled_call_impl is not None or hasattr(part, "_orig_mod") for part in parts
            ):
                return  # a hook would have it compiled again
            for part in parts:
                if isinstance(part, ACTIVATIONS):
                    self.hooks.append(
                        part.register_forward_hook(lambda _m, _i, out: self.dead.append(_dead(out)))
                    )

    def on_validation_batch_end(self, *_: Any) -> None:
        while self.hooks:
            self.hooks.pop().remove()

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Module)
        if self.answers:
            self.unit = _constant_loss(module.loss, torch.cat(self.answers), self.labels)
            self.answers.clear()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Module)
        (loss, wrong, n), logged = module.seen.tolist(), trainer.callback_metrics
        epoch = {
            "loss": loss / n,
            "gradient": _mean(module.gradient),
            "memory": float(psutil.Process().memory_info().rss + torch.cuda.max_memory_allocated()),
            "wait": float(getattr(trainer.datamodule, "waited", 0.0)),  # type: ignore[attr-defined]
            **self.layers,
        }
        if not self.labels:
            epoch["error"] = wrong / n
        if "val/loss" in logged:
            epoch["val"] = float(logged["val/loss"])
        if (
            "train/samples_per_second" in logged
        ):  # of the epoch before: this one's is logged after this hook
            epoch["seconds"] = n / float(logged["train/samples_per_second"])
        if self.dead:
            epoch["dead"] = float(torch.stack(self.dead).max())
        self._check(trainer, module, epoch["loss"], epoch.get("val", 0.0))
        self.history.append(epoch)
        self._warn(trainer)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._warn(trainer, ended=True)
        if trainer.is_global_zero:
            self._record()
            show(self.report())

    def _check(self, trainer: L.Trainer, module: Module, *values: float) -> None:
        """Raises ValueError where a value is not finite, with the cause as far as steps before it
        tell.
        """
        if all(map(math.isfinite, values)):
            return
        _, largest, _, infinite = module.gradient.tolist()
        norm = max(largest, *(epoch.get("gradient", 0.0) for epoch in self.history), 0.0)
        grown = (
            norm > self.limits["exploding_gradients"]
            or (self.history or [{}])[0].get("step", 0.0) > 1
        )
        self.history.append(
            {"loss": BEYOND, "gradient": norm} if grown else {"broken": max(1.0, infinite)}
        )
        self._judge(ended=False)
        self._record()
        sign = next(iter(self.named), "not_finite")
        where = f"epoch {trainer.current_epoch + 1}, by step {trainer.global_step}"
        raise ValueError(
            f"the loss is not finite in {where} ({sign.replace('_', ' ')}): try {SIGNS[sign][1]}"
        )

    def _judge(self, ended: bool) -> None:
        first = (self.history or [{}])[0].get("gradient", 0.0)
        found = beyond(numbers(self.history, self.unit or 1.0), self.limits, first, ended)
        self.named = {sign: self.named.get(sign, max(1, len(self.history) - 1)) for sign in found}

    def _warn(self, trainer: L.Trainer, ended: bool = False) -> None:
        """One line in the log for what is named now and never was before."""
        self._judge(ended)
        for row in self.report():
            if row["epoch"] and row["sign"] not in self.warned and trainer.is_global_zero:
                self.warned.append(row["sign"])
                text = "health: {sign} in epoch {epoch}: {number:.3g} (limit {limit:.3g}), {meaning}; try {try}"
                logs.get("train").warning(text.format(**row))

    def _record(self) -> None:
        if self.run:
            report = self.report()
            self.run.metrics(
                {row["sign"]: row["number"] for row in report if row["number"] is not None},
                "health.",
            )
            self.run.text(json.dumps(report, indent=2), "health/health.json")

    def report(self) -> list[dict[str, Any]]:
        """A row per sign: number, limit, the epoch since when it is named or None, what it means,
        what to try.
        """
        found = numbers(self.history, self.unit or 1.0)
        return [
            {
                "sign": s,
                "number": found[s],
                "limit": self.limits[s],
                "epoch": self.named.get(s),
                "meaning": m,
                "try": t,
            }
            for s, (m, t) in SIGNS.items()
        ]


def _mean(sums: Tensor) -> float:
    """Mean loss of a row from [sum, error, rows], or mean of the finite norms from [sum, largest,
    steps, infinite].
    """
    total, _, n, *infinite = sums.tolist()
    return float(total / max(1.0, n - sum(infinite)))


def _weights(module: L.LightningModule) -> list[nn.Parameter]:
    """Matrices and kernels that are trained, in the order of their layers."""
    return [p for p in module.parameters() if p.requires_grad and p.ndim > 1]


def _layers(weights: list[nn.Parameter], before: list[Tensor]) -> Epoch:
    """Gradient of the first layer as a share of the last one's, and how far the last moved, as a
    share of its size.
    """
    found, gradients = (
        Epoch(),
        [w.grad.square().mean().sqrt() for w in weights if w.grad is not None],
    )
    if len(gradients) > 1 and float(gradients[-1]) > 0:
        found["first"] = float(gradients[0] / gradients[-1])
    if before:
        size = before[0].square().mean().sqrt().clamp(min=0.01)  # some start from zero
        found["moved"] = float((weights[-1].detach() - before[0]).square().mean().sqrt() / size)
    return found


def _dead(out: Tensor) -> Tensor:
    """Share of units whose output never leaves (-0.01, 0]: flat in ReLU, and next to flat in SiLU
    and GELU.

    A unit is a channel of [n, c, h, w] or a feature of [n, c] and [n, t, c].
    """
    units = (out if out.ndim == 3 else out.movedim(1, -1)).flatten(0, -2)
    return ((units <= 0) & (units > -0.01)).all(dim=0).float().mean()


def _constant_loss(loss: nn.Module, label: Tensor, classes: int) -> float:
    """Loss of answering the shares of the classes; losses of values are in standard deviations,
    where that is 1.
    """
    if not classes:
        return 1.0
    shares = torch.bincount(label, minlength=classes) / len(label)
    return float(loss((shares + 1e-9).log().expand(len(label), -1), label))


def show(report: list[dict[str, Any]]) -> None:
    """The signs that are named, as a table on the terminal; one line where there are none."""
    from rich.console import Console
    from rich.table import Table

    console, found = Console(stderr=True), [row for row in report if row["epoch"]]
    if not found:
        console.print("  health: nothing to report")
        return
    table = Table(title="health")
    for title in ("sign", "since", "number", "limit"):
        table.add_column(title, no_wrap=True)
    table.add_column("what it is, and what to try")
    for row in found:
        numbers = (str(row["epoch"]), f"{row['number']:.3g}", f"{row['limit']:.3g}")
        table.add_row(row["sign"], *numbers, f"{row['meaning']}: try {row['try']}")
    console.print(table)

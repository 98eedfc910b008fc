"""The Lightning module: a network with its loss, its metrics and its optimizer, written against the
task kind.
"""

import math
import time
from typing import Any, Protocol, runtime_checkable

import lightning as L
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..settings import SCORE, Settings
from . import kinds
from .losses import build_loss

HELD = 64  # batches that are judged at once: that costs as much for one as for many


def build_network(settings: Settings) -> nn.Module:
    """The network of `configs/model`: an output per label, or value and log deviation for a
    regression.
    """
    network = instantiate(settings.model)(num_outputs=len(settings.data.labels) or 2)
    assert isinstance(network, nn.Module)
    return network


@runtime_checkable
class Adapts(Protocol):
    """A network that takes means, scales and the like from the training data before it is fitted."""

    def adapt(self, inputs: dict[str, NDArray[Any]], label: NDArray[Any]) -> None: ...


class Module(L.LightningModule):
    """Fits `network` to batches of {"inputs": {name: [n, ...]}, "label": [n]}; logs loss and
    metrics once per epoch.

    `scale` is the standard deviation of the training labels: losses of values are taken in that
    unit. 1 for classes. What steps have to say is kept and added up later, many steps at once:
    metric objects in every step cost more than a small network's own work, and `item()` would make
    a GPU wait.
    """

    def __init__(self, settings: Settings, network: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.settings, self.network, self.scale = settings, network, scale
        self.kind = kinds.of(settings.data.kind)
        self.loss = build_loss(settings.loss, settings.data.kind, len(settings.data.labels) or 2)
        self.val_metrics = self.kind.training_metrics(len(settings.data.labels)).clone(
            prefix="val/"
        )
        self.seen, self.gradient = self._zeros(3), self._zeros(4)
        self._val: list[
            tuple[Tensor, Tensor]
        ] = []  # not yet judged: outputs and labels of validation batches
        self._val_loss: list[tuple[float, int]] = []

    def _zeros(self, num: int) -> Tensor:
        return torch.zeros(
            num,
            dtype=torch.float32 if self.device.type == "mps" else torch.float64,
            device=self.device,
        )

    @property
    def seen(self) -> Tensor:
        """[3] of this epoch so far: sums of the rows' losses and errors, and the number of rows."""
        if self._steps:
            losses, raws, labels = zip(*self._steps, strict=True)
            n = torch.tensor([len(x) for x in labels], device=self._seen.device).to(
                self._seen.dtype
            )
            wrong = self._error(torch.cat(raws), torch.cat(labels))
            self.seen = self._seen + torch.stack(
                [torch.stack(losses).to(n.dtype) @ n, wrong.sum(dtype=n.dtype), n.sum()]
            )
        return self._seen

    @seen.setter
    def seen(self, value: Tensor) -> None:
        self._seen = value
        self._steps: list[
            tuple[Tensor, Tensor, Tensor]
        ] = []  # not yet in the sums: loss, outputs and labels

    @property
    def gradient(self) -> Tensor:
        """[4] of this epoch so far, norms before clipping: sum, largest, number of steps, and of
        those not finite.
        """
        if self._norms:
            norms, before = torch.stack(self._norms).to(self._gradient.dtype), self._gradient
            lost = ~norms.isfinite()
            known = norms.masked_fill(lost, 0)
            parts = [
                known.sum(),
                known.max(),
                torch.ones_like(known).sum(),
                lost.sum(dtype=known.dtype),
            ]
            self.gradient = before + torch.stack(
                [parts[0], (parts[1] - before[1]).relu(), *parts[2:]]
            )
        return self._gradient

    @gradient.setter
    def gradient(self, value: Tensor) -> None:
        self._gradient = value
        self._norms: list[Tensor] = []  # not yet in the sums

    def _error(self, raw: Tensor, label: Tensor) -> Tensor:
        """[n]: squared, in `scale`, for values; whether the likeliest class is another one for
        classes.
        """
        errors: Tensor = self.kind.errors(raw, label, self.scale)
        return errors

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        raw, embedding = self.network(**inputs)
        return raw, embedding

    def _loss(self, raw: Tensor, label: Tensor) -> Tensor:
        loss: Tensor = self.loss(*self.kind.scaled(raw, label, self.scale))
        return loss

    def on_train_start(self) -> None:
        self._clock, self._rows_before = (
            [time.perf_counter()] * 2,
            float(self.seen[2]),
        )  # amid an epoch after resuming

    def on_train_epoch_start(self) -> None:
        self.seen, self.gradient = self._zeros(3), self._zeros(4)
        self.on_train_start()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        raw, _ = self.network(**batch["inputs"])
        loss = self._loss(raw, batch["label"])
        self._steps.append((loss.detach(), raw.detach(), batch["label"]))
        if len(self._steps) >= HELD:
            _ = self.seen, self.gradient  # adds up
        self._clock[1] = time.perf_counter()
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(
                optimizer
            )  # fused optimizers would do so themselves, too late for the norm
        sharded = getattr(self.trainer.strategy.model, "clip_grad_norm_", None)
        if sharded is not None:  # FSDP: each process holds a part of every gradient
            self._norms.append(sharded(gradient_clip_val or math.inf))
        else:
            self.clip(
                [p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val
            )

    def clip(self, parameters: list[Tensor], limit: float | None) -> None:
        """As `torch.nn.utils.clip_grad_norm_`, which spends more on sorting tensors by device; and
        keeps the norm.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self._norms.append(norm)
        # Asking a GPU for the norm would make it wait; there a multiplication by one is cheaper.
        if limit and (norm.device.type != "cpu" or float(norm) > limit):
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))

    def on_train_epoch_end(self) -> None:
        loss, wrong, n = self.seen.tolist()
        values = {"train/loss": loss / n, f"train/{SCORE[self.settings.data.kind]}": 1 - wrong / n}
        self.log_dict(values, prog_bar=True, sync_dist=True)
        total, largest, steps, infinite = self.gradient.tolist()
        norms = {
            "train/gradient_norm": total / max(1, steps - infinite),
            "train/gradient_norm_max": largest,
        }
        rate = (n - self._rows_before) * self.trainer.world_size / (self._clock[1] - self._clock[0])
        wait = float(getattr(self.trainer.datamodule, "waited", 0.0))  # type: ignore[attr-defined]
        self.log_dict(
            {**norms, "train/samples_per_second": rate, "train/data_wait": wait}, sync_dist=True
        )

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        raw, _ = self(batch["inputs"])
        self._val.append((raw.to(torch.promote_types(raw.dtype, torch.float32)), batch["label"]))
        if len(self._val) >= HELD:
            self._judge()

    def _judge(self) -> None:
        raw, label = (torch.cat(parts) for parts in zip(*self._val, strict=True))
        self._val.clear()
        self._val_loss.append((float(self._loss(raw, label)), len(label)))
        strict = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(
            False
        )  # else torchmetrics compares every row with every bin of a count
        self.val_metrics.update(self.kind.prediction(raw), label)
        torch.use_deterministic_algorithms(strict)

    def on_validation_epoch_end(self) -> None:
        if self._val:
            self._judge()
        rows = sum(n for _, n in self._val_loss)
        self.log(
            "val/loss",
            sum(loss * n for loss, n in self._val_loss) / rows,
            prog_bar=True,
            sync_dist=True,
        )
        self._val_loss.clear()
        self.log_dict(dict(self.val_metrics.compute().items()), sync_dist=True)
        self.val_metrics.reset()

    def configure_optimizers(self) -> Any:
        optimizer = instantiate(self.settings.optimizer)(params=self.network.parameters())
        if self.settings.scheduler is None:
            return optimizer
        build = instantiate(self.settings.scheduler)
        if getattr(build, "func", None) is ReduceLROnPlateau:
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": build(optimizer), "monitor": "val/loss"},
            }
        own = build.func.__module__.startswith(__package__.partition(".")[0])
        arguments = {"total_steps": int(self.trainer.estimated_stepping_batches)} if own else {}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": build(optimizer, **arguments), "interval": "step"},
        }

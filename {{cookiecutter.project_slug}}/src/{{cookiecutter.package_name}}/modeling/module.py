"""The Lightning module: a network with its loss, its metrics and its optimizer, written against the task kind."""

import math
from typing import Any, Protocol, runtime_checkable

import lightning as L
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..settings import SCORE, Settings
from .metrics import metrics, prediction


def build_network(settings: Settings) -> nn.Module:
    """The network of `configs/model`: an output per label, or value and log deviation for a regression."""
    network = instantiate(settings.model)(num_outputs=len(settings.data.labels) or 2)
    assert isinstance(network, nn.Module)
    return network


@runtime_checkable
class Adapts(Protocol):
    """A network that takes means, scales and the like from the training data before it is fitted."""

    def adapt(self, inputs: dict[str, NDArray[Any]], label: NDArray[Any]) -> None: ...


class Module(L.LightningModule):
    """Fits `network` to batches of {"inputs": {name: [n, ...]}, "label": [n]}; logs loss and metrics once per epoch.

    `scale` is the standard deviation of the training labels: losses of values are taken in that unit. 1 for classes.
    """

    def __init__(self, settings: Settings, network: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.settings, self.network, self.scale = settings, network, scale
        self.kind = settings.data.kind
        self.loss = instantiate(settings.loss)
        self.val_metrics = metrics(self.kind, len(settings.data.labels)).clone(prefix="val/")

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        raw, embedding = self.network(**inputs)
        return raw, embedding

    def _loss(self, raw: Tensor, label: Tensor) -> Tensor:
        if self.kind == "regression":
            raw = torch.stack([raw[:, 0] / self.scale, raw[:, 1] - math.log(self.scale)], dim=1)
            label = label / self.scale
        loss: Tensor = self.loss(raw, label)
        return loss

    def on_train_epoch_start(self) -> None:
        # Sums, not metric objects, in the training step: those cost more than this network's own work.
        self.seen = torch.zeros(3, device=self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        raw, _ = self(batch["inputs"])
        label = batch["label"]
        loss = self._loss(raw, label)
        found = raw.detach()
        wrong = ((found[:, 0] - label) / self.scale) ** 2 if self.kind == "regression" else found.argmax(1) != label
        self.seen += torch.stack([loss.detach() * len(label), wrong.sum(), torch.tensor(len(label))])
        return loss

    def on_train_epoch_end(self) -> None:
        loss, wrong, n = self.seen.tolist()
        values = {"train/loss": loss / n, f"train/{SCORE[self.kind]}": 1 - wrong / n}
        self.log_dict(values, prog_bar=True, sync_dist=True)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        raw, _ = self(batch["inputs"])
        loss = self._loss(raw, batch["label"])
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch["label"]), sync_dist=True)
        self.val_metrics.update(prediction(self.kind, raw), batch["label"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(dict(self.val_metrics.compute().items()), sync_dist=True)
        self.val_metrics.reset()

    def configure_optimizers(self) -> Any:
        optimizer = instantiate(self.settings.optimizer)(params=self.network.parameters())
        if self.settings.scheduler is None:
            return optimizer
        build = instantiate(self.settings.scheduler)
        if getattr(build, "func", None) is ReduceLROnPlateau:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": build(optimizer), "monitor": "val/loss"}}
        own = build.func.__module__.startswith(__package__.partition(".")[0])
        arguments = {"total_steps": int(self.trainer.estimated_stepping_batches)} if own else {}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": build(optimizer, **arguments), "interval": "step"},
        }

"""The Lightning module: a network with its loss, its metrics and its optimizer, written against the task kind."""

from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..settings import Settings
from .metrics import metrics


def build_network(settings: Settings) -> nn.Module:
    """The network of `configs/model`, with as many outputs as there are labels."""
    network = instantiate(settings.model)(num_classes=len(settings.data.labels))
    assert isinstance(network, nn.Module)
    return network


class Module(L.LightningModule):
    """Fits `network` to batches of {"inputs": {name: [n, ...]}, "label": [n]}; logs loss and metrics once per epoch."""

    def __init__(self, settings: Settings, network: nn.Module) -> None:
        super().__init__()
        self.settings, self.network = settings, network
        self.loss = instantiate(settings.loss)
        self.val_metrics = metrics(settings.data.kind, len(settings.data.labels)).clone(prefix="val/")

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits, embedding = self.network(**inputs)
        return logits, embedding

    def on_train_epoch_start(self) -> None:
        # Sums, not metric objects, in the training step: those cost more than this network's own work.
        self.seen = torch.zeros(3, device=self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        logits, _ = self(batch["inputs"])
        loss: Tensor = self.loss(logits, batch["label"])
        n = len(batch["label"])
        correct = (logits.detach().argmax(dim=1) == batch["label"]).sum()
        self.seen += torch.stack([loss.detach() * n, correct, torch.full_like(correct, n)])
        return loss

    def on_train_epoch_end(self) -> None:
        loss, correct, n = self.seen.tolist()
        self.log_dict({"train/loss": loss / n, "train/accuracy": correct / n}, prog_bar=True, sync_dist=True)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        logits, _ = self(batch["inputs"])
        loss = self.loss(logits, batch["label"])
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch["label"]), sync_dist=True)
        self.val_metrics.update(logits.softmax(dim=1), batch["label"])

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

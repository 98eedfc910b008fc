"""The Lightning module: a network with its loss, its metrics and its optimizer."""

from inspect import signature
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..settings import SCORE, Settings
from ..types import Inputs
from . import kinds
from .losses import build_loss


def build_network(settings: Settings) -> nn.Module:
    """The network of `configs/model`: an output per label, or value and log deviation."""
    network = instantiate(settings.model)(num_outputs=len(settings.data.labels) or 2)
    assert isinstance(network, nn.Module)
    return network


def check_network(settings: Settings, network: nn.Module, inputs: Inputs) -> None:
    """Puts rows through the network, which stays as it is. Raises ValueError where it does not take
    them, or does not return (raw outputs [n, k], embedding [n, e]).
    """
    name, rows = type(network).__name__, {k: torch.from_numpy(v) for k, v in inputs.items()}
    shapes = {key: list(values.shape) for key, values in rows.items()}
    try:
        signature(network.forward).bind(**rows)
    except TypeError as error:
        text = f"{name}.forward: {error}; it is called with the inputs by name, {shapes}"
        raise ValueError(text) from None
    modes = [(layer, layer.training) for layer in network.modules()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        output: Any = network.eval()(**rows)
    for layer, training in modes:  # some are frozen
        layer.training = training
    num_rows, num_labels = len(next(iter(rows.values()))), len(settings.data.labels)
    wanted = [[num_rows, k] for k in kinds.of(settings.data.kind).raw_sizes(num_labels)]
    if not returns(output, wanted):
        raise ValueError(
            f"{name} must return a pair, raw outputs {' or '.join(map(str, wanted))} and an"
            f" embedding [{num_rows}, e] of another width, for {num_rows} rows: it returned"
            f" {described(output)}"
        )


def returns(output: Any, wanted: list[list[int]]) -> bool:
    """Whether these are raw outputs of a wanted shape, and an embedding of another one."""
    if not isinstance(output, tuple | list) or len(output) != 2:
        return False
    raw, embedding = (list(part.shape) if isinstance(part, Tensor) else [] for part in output)
    return raw in wanted and len(embedding) == 2 and embedding[0] == raw[0] and embedding != raw


def described(output: Any) -> str:
    """What a network returned, in words."""
    if isinstance(output, Tensor):
        return f"one tensor {list(output.shape)}"
    if isinstance(output, dict):
        return f"a dict of {', '.join(map(str, output))}"
    if isinstance(output, tuple | list):
        return f"{len(output)}: {', '.join(map(described, output))}"
    return f"a {type(output).__name__}"


class Module(L.LightningModule):
    """Fits `network` to batches of {"inputs": {name: [n, ...]}, "label": [n]}; `scale` is the unit
    of losses of values: the standard deviation of the training labels, 1 for classes.
    """

    def __init__(self, settings: Settings, network: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.settings, self.network, self.scale = settings, network, scale
        self.kind, num_labels = kinds.of(settings.data.kind), len(settings.data.labels)
        self.loss = build_loss(settings.loss, settings.data.kind, num_labels or 2)
        self.score = f"train/{SCORE[settings.data.kind]}"
        self.val_metrics = self.kind.training_metrics(num_labels).clone(prefix="val/")

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        raw, embedding = self.network(**inputs)
        return raw, embedding

    def compute_loss(self, raw: Tensor, label: Tensor) -> Tensor:
        loss: Tensor = self.loss(*self.kind.scaled(raw, label, self.scale))
        return loss

    def on_train_epoch_start(self) -> None:
        # Sums, logged at the end of the epoch: `log` in every step takes longer than small steps.
        self.sums = torch.zeros(2, device=self.device)  # of the rows' losses and scores
        self.norms, self.num_rows, self.num_steps = torch.zeros((), device=self.device), 0, 0

    on_train_start = on_train_epoch_start  # after resuming, an epoch does not start

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        raw, _ = self(batch["inputs"])
        loss = self.compute_loss(raw, batch["label"])
        errors = self.kind.errors(raw.detach(), batch["label"], self.scale)
        num_rows = len(batch["label"])  # the last batch of an epoch may be smaller
        self.sums += num_rows * torch.stack([loss.detach(), 1 - errors.float().mean()])
        self.num_rows += num_rows
        return loss

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        gradients = (p.grad for p in self.network.parameters() if p.grad is not None)
        self.norms += nn.utils.get_total_norm(list(gradients))
        self.num_steps += 1

    def on_train_batch_end(self, *_: Any) -> None:
        if self.trainer.is_last_batch:
            (loss, score), norm = self.sums / self.num_rows, self.norms / max(1, self.num_steps)
            values = {"train/loss": loss, self.score: score, "train/gradient_norm": norm}
            self.log_mean(values, self.num_rows)

    def log_mean(self, values: dict[str, Tensor], rows: int) -> None:
        """Logs the mean over the epoch, and over all processes."""
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=rows, sync_dist=True)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        raw, _ = self(batch["inputs"])
        raw, label = raw.float(), batch["label"]
        self.log_mean({"val/loss": self.compute_loss(raw, label)}, len(label))
        self.val_metrics.update(self.kind.prediction(raw), label)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(dict(self.val_metrics.compute()))
        self.val_metrics.reset()

    def configure_optimizers(self) -> Any:
        build = instantiate(self.settings.optimizer)
        if self.settings.trainer.precision.endswith("mixed") and "fused" in build.keywords:
            build.keywords["fused"] = False  # Lightning does not clip gradients of a fused one
        optimizer = build(params=self.network.parameters())
        if self.settings.scheduler is None:
            return optimizer
        scheduler = instantiate(self.settings.scheduler)
        timing = {"interval": "step"}
        if scheduler.func is ReduceLROnPlateau:
            timing = {"monitor": "val/loss"}
        if "total_steps" in signature(scheduler.func).parameters:
            steps = int(self.trainer.estimated_stepping_batches)
            scheduler.keywords["total_steps"] = steps * self.settings.trainer.batches_per_step
        return [optimizer], [{"scheduler": scheduler(optimizer), **timing}]

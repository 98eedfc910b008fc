"""For networks so small that Lightning's hooks take longer than steps: `trainer=throughput`.

One call of `training_step` takes `trainer.batches_per_step` batches, which come as one large batch,
and optimises by hand after each of them. Weights are those of `trainer=cpu`, but for augmentation,
which draws for the large batch at once. Callbacks and logs see every so-manieth step.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..modeling.module import Module
from ..settings import Settings


class ChunkModule(Module):
    """Manual optimization over a chunk of batches. Raises ValueError for accumulated gradients."""

    def __init__(self, settings: Settings, network: nn.Module, scale: float = 1.0) -> None:
        super().__init__(settings, network, scale)
        self.automatic_optimization = False
        self.norms: list[Tensor] = []  # of gradients, in the chunk
        if settings.trainer.accumulate_grad_batches > 1:
            raise ValueError("trainer.batches_per_step above 1 does not accumulate gradients")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        size, results = self.settings.training.batch_size, []
        parts = {name: values.split(size) for name, values in batch["inputs"].items()}
        for i, label in enumerate(batch["label"].split(size)):
            loss, score = self.compute({name: part[i] for name, part in parts.items()}, label)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            if scheduler and not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
            results.append(torch.stack([loss.detach(), score]) * len(label))
        mean = torch.stack(results).sum(dim=0) / len(batch["label"])
        self.log_mean({"train/loss": mean[0], self.score: mean[1]}, len(batch["label"]))
        self.log_mean({"train/gradient_norm": torch.stack(self.norms).mean()}, len(self.norms))
        self.norms.clear()
        return mean[0]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        limit = self.settings.trainer.gradient_clip_val or math.inf
        self.norms.append(nn.utils.clip_grad_norm_(self.network.parameters(), limit))

    def on_train_epoch_end(self) -> None:
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(self.trainer.callback_metrics["val/loss"])

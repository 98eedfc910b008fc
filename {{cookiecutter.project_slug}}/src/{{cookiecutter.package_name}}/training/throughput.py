"""For networks so small that Lightning's hooks take longer than steps: `trainer=throughput`.

One call of `training_step` takes `trainer.batches_per_step` batches, which come as one large batch,
and optimises by hand after each of them. Weights are those of `trainer=cpu`, but for augmentation,
which draws for the large batch at once. Callbacks and logs see every so-manieth step.
"""

import math
from typing import Any

from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..modeling.module import Module
from ..settings import Settings


class ChunkModule(Module):
    """Manual optimization over a chunk of batches. Raises ValueError for accumulated gradients."""

    def __init__(self, settings: Settings, network: nn.Module, scale: float = 1.0) -> None:
        super().__init__(settings, network, scale)
        self.automatic_optimization = False
        if settings.trainer.accumulate_grad_batches > 1:
            raise ValueError("trainer.batches_per_step above 1 does not accumulate gradients")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        size = self.settings.training.batch_size
        parts = {name: values.split(size) for name, values in batch["inputs"].items()}
        for i, label in enumerate(batch["label"].split(size)):
            inputs = {name: part[i] for name, part in parts.items()}
            loss = super().training_step({"inputs": inputs, "label": label}, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            if scheduler and not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()
        return loss.detach()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        limit = self.settings.trainer.gradient_clip_val or math.inf
        self.norms += nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.num_steps += 1

    def on_train_epoch_end(self) -> None:
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(self.trainer.callback_metrics["val/loss"])

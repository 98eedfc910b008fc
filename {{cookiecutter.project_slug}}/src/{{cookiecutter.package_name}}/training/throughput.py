"""Lightning's own loop, in which most batches pass without a round of hooks:
`trainer.batches_per_step`.

For a small network a round costs more than the step itself. Here it is made for every
`batches_per_step`-th batch, for the last one of an epoch and for those that are logged. In between
a batch goes through the same operations in the same order, so that weights are the same bit for
bit, and Lightning's counters are kept, so that `global_step`, schedulers, accumulation, logging,
checkpoints and resuming are its own.
"""

from contextlib import nullcontext
from itertools import islice
from typing import Any

import lightning as L
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.loops.utilities import _block_parallel_sync_behavior
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

NOTHING = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Lightning enters a context of its profiler some sixty times a step, of which this makes
    nothing.
    """

    def profile(self, action_name: str) -> Any:
        return NOTHING


class ThroughputLoop(_TrainingEpochLoop):
    """Callbacks see every `every`-th batch: those that must see all belong with `trainer=cpu`."""

    def __init__(self, trainer: L.Trainer, every: int) -> None:
        super().__init__(trainer, trainer.min_steps, trainer.max_steps)
        self.every = every

    def on_run_start(self, data_fetcher: Any) -> None:
        super().on_run_start(data_fetcher)
        strategy, module = self.trainer.strategy, self.trainer.lightning_module
        bare = strategy.model is module and type(self.trainer.precision_plugin) is Precision
        self.step = (
            module.training_step if bare else strategy.training_step
        )  # which enters contexts
        self.parameters = [
            p for group in self.trainer.optimizers[0].param_groups for p in group["params"]
        ]

    def advance(self, data_fetcher: Any) -> None:
        plain = 0 if self.restarting else self._plain_batches()
        # never up to the last batch, so that what lies between the loader and us has only to count
        if plain:
            cycle = data_fetcher.combined_loader._iterator
            for batch in islice(cycle.iterators[0], plain):
                self._plain_step(batch)
            cycle._idx += plain
            data_fetcher.fetched += plain
        super().advance(data_fetcher)

    def _plain_batches(self) -> Any:
        """How many batches may pass before one that hooks are called for."""
        trainer, batch, num = (
            self.trainer,
            self.batch_progress.current.ready,
            self.trainer.accumulate_grad_batches,
        )
        if self.global_step == 0 or trainer.num_training_batches == float("inf"):
            # what training starts from is worth a look, and an unknown last batch needs its round
            return 0
        steps = -(self._batches_that_stepped + 1) % (trainer.log_every_n_steps or self.every)
        if self.max_steps >= 0:
            steps = min(steps, self.max_steps - self.global_step - 1)
        ends = [
            (-batch - 1) % int(n)
            for n in (trainer.num_training_batches, trainer.val_check_batch or 1)
        ]
        return min(
            max(0, steps * num - batch % num),
            *ends,
            -(self.batch_progress.total.ready + 1) % self.every,
        )

    def _plain_step(self, batch: Any) -> None:
        """Forward, backward and, unless gradients accumulate, an optimizer step, with Lightning's
        bookkeeping.
        """
        trainer, progress, num = (
            self.trainer,
            self.batch_progress,
            self.trainer.accumulate_grad_batches,
        )
        strategy, optimizer = trainer.strategy, trainer.optimizers[0]
        batch = self._on_device(batch)
        first = progress.current.ready % num == 0
        progress.increment_by(1)
        accumulates = self._should_accumulate()
        with _block_parallel_sync_behavior(strategy) if accumulates else NOTHING:
            loss = self.step(batch, progress.current.ready - 1)
            if first:
                for parameter in (
                    self.parameters
                ):  # optimizer.zero_grad() does the same, and keeps a record of it
                    parameter.grad = None
            (loss if num == 1 else loss / num).backward()
        if accumulates:
            return
        trainer.lightning_module.clip(self.parameters, trainer.gradient_clip_val)
        optimizer.step()
        self.automatic_optimization.optim_progress.optimizer.step.increment_by(1)
        for config in trainer.lr_scheduler_configs:
            if config.interval == "step" and progress.current.ready % config.frequency == 0:
                config.scheduler.step()
                self.scheduler_progress.increment_by(1)
        self._batches_that_stepped += 1

    def _on_device(self, batch: Any) -> Any:
        """The data module's hooks without Lightning's search for them."""
        data, device = self.trainer.datamodule, self.trainer.strategy.root_device
        batch = data.on_before_batch_transfer(self.trainer.precision_plugin.convert_input(batch), 0)
        if device.type != "cpu":
            batch = data.transfer_batch_to_device(batch, device, 0)
        return data.on_after_batch_transfer(batch, 0)


def install(trainer: Any, batches_per_step: int) -> None:
    """Gives the trainer our loop, unless it is profiled, or sharded, or scales losses: their steps
    are other ones.
    """
    if type(trainer.profiler) is not PassThroughProfiler:
        return
    trainer.profiler = NoProfiler()
    ours = isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy)
    if batches_per_step > 1 and ours and getattr(trainer.precision_plugin, "scaler", None) is None:
        trainer.fit_loop.epoch_loop = ThroughputLoop(trainer, batches_per_step)

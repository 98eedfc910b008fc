"""Fits the network with Lightning: the loop, its callbacks and its checkpoints."""

import logging
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import Logger
from torch import nn

from ..data.datamodule import DataModule, label_scale, load
from ..modeling.module import Adapts, Module, build_network
from ..provenance import write_json
from ..settings import SCORE, Settings
from ..tracking import Run
from . import checkpoints, throughput
from .health import Health
from .loggers import loggers
from .panel import panel

HEALTH = "health.json"


class EpochLines(Callback):
    """One line per epoch, for terminals that can't redraw a progress bar; keeps the errors for the
    overfit check.
    """

    def __init__(self, show: bool) -> None:
        self.show, self.errors = show, list[float]()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Module)
        loss, wrong, n = module.seen.tolist()  # the module logs these just after this hook
        self.errors.append(wrong / n)
        if self.show:
            values = {
                **{k: float(v) for k, v in trainer.callback_metrics.items()},
                "train/loss": loss / n,
            }
            shown = " ".join(
                f"{k} {values[k]:.4f}"
                for k in ("train/loss", "val/loss", f"val/{SCORE[module.settings.data.kind]}")
                if k in values
            )
            print(
                f"  epoch {trainer.current_epoch + 1}/{trainer.max_epochs} {shown}", file=sys.stderr
            )

    def state_dict(self) -> dict[str, Any]:
        return {"errors": self.errors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.errors = state_dict["errors"]


def quiet() -> None:
    """Lightning's advertising tips and hardware lines are off; warnings stay, but for those that do
    not apply here.
    """
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Batches are cut from tensors in memory: worker processes would only cost.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings(
        "ignore", message=".*number of training batches.*smaller than the logging interval.*"
    )
    warnings.filterwarnings(
        "ignore", message="Checkpoint directory .* exists and is not empty.*"
    )  # to resume from
    warnings.filterwarnings(
        "ignore", message=".*isinstance\\(treespec, LeafSpec\\).*", category=FutureWarning
    )


def standard_callbacks(
    settings: Settings, folder: Path, lines: EpochLines, logs: bool
) -> list[Callback]:
    """Best checkpoint by validation loss, those to resume from, early stopping, epoch lines, and
    the learning rate.
    """
    training = settings.training
    found: list[Callback] = [
        lines,
        EarlyStopping("val/loss", patience=training.early_stopping_patience),
    ]
    if not settings.trainer.fast_dev_run:
        found.append(
            ModelCheckpoint(folder, "best", monitor="val/loss", enable_version_counter=False)
        )
        found.append(checkpoints.Resume(folder, training.checkpoint_seconds))
    return [*found, LearningRateMonitor()] if logs else found


def build_module(settings: Settings) -> Module:
    """The network of the configuration in its Lightning module; a network that adapts has seen the
    training data.
    """
    network = build_network(settings)
    if isinstance(network, Adapts):
        examples = load(settings, "train")
        network.adapt(examples.inputs, examples.label)
    return Module(settings, network, label_scale(settings))


def fit_network(
    settings: Settings,
    run: Run | None,
    *,
    callbacks: Sequence[Callback] = (),
    build: Callable[[Settings], Module] | None = None,
    resume: bool = False,
) -> nn.Module:
    """Trains and returns the network with the weights of its best epoch, ready for inference, on
    the CPU.

    Without a run, this is one of the other processes of a distributed run: it records and saves
    nothing. `build` makes the module to train where that is not the configured network with its own
    loss; `callbacks` are added to ours. With `resume`, goes on from what an interrupted call with
    the same arguments has left in `paths.state`.
    """
    quiet()
    torch.set_num_threads(settings.training.num_threads)
    # With `trainer.deterministic` PyTorch would fill all new memory: it is written before it is
    # read here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    L.seed_everything(settings.seed, workers=True, verbose=False)
    folder = checkpoints.state_folder(settings)
    if run and not resume:
        shutil.rmtree(folder, ignore_errors=True)
    lines = EpochLines(show=not bar(settings) and run is not None)
    logger = loggers(settings, run) if run and not settings.trainer.fast_dev_run else []
    shown = panel(settings, run) if run and logger else []
    health = Health(settings, run)
    own = [health, *standard_callbacks(settings, folder, lines, bool(logger))]
    trainer = make_trainer(settings, logger, [*own, *shown, *callbacks])
    module = (build or build_module)(settings)
    last = checkpoints.latest(folder) if resume else None
    fit(trainer, module, DataModule(settings), last)
    if settings.training.must_overfit and not lines.errors[-1] < 0.5 * lines.errors[0]:
        raise ValueError(
            f"the mean error went from {lines.errors[0]:.3f} to {lines.errors[-1]:.3f} on one batch: "
            "the network cannot learn; look at its loss, learning rate and shapes"
        )
    if run and not settings.trainer.fast_dev_run:
        restore_best(module.network, folder, settings.paths.model)
    if run:
        write_json(settings.paths.state / HEALTH, health.report())
    return module.network.eval().cpu()


def fit(trainer: L.Trainer, module: Module, data: DataModule, last: Path | None) -> None:
    """Trains, from a checkpoint on where there is one. Raises ValueError where another of its
    processes is gone.
    """
    try:
        trainer.fit(module, data, ckpt_path=last, weights_only=True if last else None)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if trainer.world_size == 1 or not any(
            word in str(error) for word in ("gloo", "NCCL", "peer")
        ):
            raise
        others = getattr(trainer.strategy.launcher, "procs", [])
        for other in others:
            other.kill()
        # else Lightning, which watches them, would end this process before its run is
        others.clear()
        raise ValueError(
            "another process of this training has ended, or cannot be reached: the same command goes on from here"
        ) from error


def bar(settings: Settings) -> bool:
    """Whether a progress bar is wanted, and can be redrawn."""
    return settings.trainer.enable_progress_bar and sys.stderr.isatty()


def make_trainer(settings: Settings, logger: list[Logger], callbacks: list[Callback]) -> L.Trainer:
    own = {
        "enable_progress_bar": bar(settings),
        "enable_checkpointing": not settings.trainer.fast_dev_run,
    }
    options: dict[str, Any] = {**settings.trainer.model_dump(exclude={"batches_per_step"}), **own}
    trainer = L.Trainer(
        **options,
        default_root_dir=settings.paths.state,
        logger=logger,
        callbacks=callbacks,
        plugins=[checkpoints.SafeCheckpoints()],
        enable_model_summary=False,
    )
    throughput.install(trainer, settings.trainer.batches_per_step)
    return trainer


def restore_best(network: nn.Module, folder: Path, target: Path) -> None:
    """Loads the best checkpoint's weights, and copies best and last to the pipeline's output."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    last, best = checkpoints.latest(folder), folder / checkpoints.BEST
    if last is None or not best.is_file():
        raise ValueError(
            f"the checkpoints in {folder} were damaged while training: run the same command again"
        )
    shutil.copyfile(last, target / "last.ckpt")
    shutil.copyfile(best, target / checkpoints.BEST)
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    )

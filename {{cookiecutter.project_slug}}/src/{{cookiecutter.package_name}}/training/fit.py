"""Fits the network with Lightning: the loop, its callbacks and its checkpoints."""

import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import Logger, MLFlowLogger
from torch import nn

from ..data.datamodule import DataModule, label_scale, load
from ..experiments.tracking import tracker_uri
from ..modeling.module import Adapts, Module, build_network
from ..settings import SCORE, Settings


class EpochLines(Callback):
    """One line per epoch, for terminals that can't redraw a progress bar; keeps the errors for the overfit check."""

    def __init__(self, show: bool) -> None:
        self.show, self.errors = show, list[float]()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Module)
        loss, wrong, n = module.seen.tolist()  # the module logs these just after this hook
        self.errors.append(wrong / n)
        if self.show:
            values = {**{k: float(v) for k, v in trainer.callback_metrics.items()}, "train/loss": loss / n}
            shown = " ".join(
                f"{k} {values[k]:.4f}" for k in ("train/loss", "val/loss", f"val/{SCORE[module.kind]}") if k in values
            )
            print(f"  epoch {trainer.current_epoch + 1}/{trainer.max_epochs} {shown}", file=sys.stderr)


def quiet() -> None:
    """Lightning's advertising tips and hardware lines are off; warnings stay, but for those that do not apply here."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Batches are cut from tensors in memory: worker processes would only cost.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*", category=FutureWarning)


def loggers(settings: Settings, run_id: str) -> list[Logger]:
    """MLflow, in the run that is already open, and the second logger of `configs/logger` where one is chosen."""
    made: list[Logger] = [MLFlowLogger(settings.tracking.experiment, tracking_uri=tracker_uri(settings), run_id=run_id)]
    if settings.logger.extra:
        made.append(instantiate(settings.logger.extra))
    return made


def callbacks(settings: Settings, folder: Path, lines: EpochLines, logs: bool) -> list[Callback]:
    """Best and last checkpoint by validation loss, early stopping on it, epoch lines, and the learning rate."""
    patience = settings.training.early_stopping_patience
    checkpoint = ModelCheckpoint(folder, "best", monitor="val/loss", save_last=True, enable_version_counter=False)
    found: list[Callback] = [lines, EarlyStopping("val/loss", patience=patience)]
    if not settings.trainer.fast_dev_run:
        found.append(checkpoint)
    return [*found, LearningRateMonitor()] if logs else found


def fit_network(settings: Settings, run_id: str | None) -> nn.Module:
    """Trains and returns the network with the weights of its best epoch, ready for inference, on the CPU.

    Without a run, this is one of the other processes of a distributed run: it records and saves nothing.
    """
    quiet()
    torch.set_num_threads(settings.training.num_threads)
    L.seed_everything(settings.seed, workers=True, verbose=False)
    bar = settings.trainer.enable_progress_bar and sys.stderr.isatty()
    lines = EpochLines(show=not bar and bool(run_id))
    folder = settings.paths.state / "checkpoints"
    if run_id:
        shutil.rmtree(folder, ignore_errors=True)
    options: dict[str, Any] = {**settings.trainer.model_dump(), "enable_progress_bar": bar}
    logger = loggers(settings, run_id) if run_id and not settings.trainer.fast_dev_run else []
    trainer = L.Trainer(
        **options,
        default_root_dir=settings.paths.state,
        logger=logger,
        callbacks=callbacks(settings, folder, lines, bool(logger)),
        enable_checkpointing=not settings.trainer.fast_dev_run,
        enable_model_summary=False,
    )
    network = build_network(settings)
    if isinstance(network, Adapts):
        examples = load(settings, "train")
        network.adapt(examples.inputs, examples.label)
    try:
        trainer.fit(Module(settings, network, label_scale(settings)), DataModule(settings))
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    if settings.training.must_overfit and not lines.errors[-1] < 0.5 * lines.errors[0]:
        raise ValueError(
            f"the mean error went from {lines.errors[0]:.3f} to {lines.errors[-1]:.3f} on one batch: "
            "the network cannot learn; look at its loss, learning rate and shapes"
        )
    if run_id:
        restore_best(network, folder, settings.paths.model)
    return network.eval().cpu()


def restore_best(network: nn.Module, folder: Path, target: Path) -> None:
    """Loads the best checkpoint's weights and moves best and last to the pipeline's output."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt"):
        if (folder / name).is_file():
            (folder / name).replace(target / name)
    if (target / "best.ckpt").is_file():
        state = torch.load(target / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")})

"""Fits the network with Lightning: module, data, callbacks, trainer."""

import logging
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from torch import nn

from .. import logs
from ..data.datamodule import DataModule, first_rows, label_scale, load
from ..modeling import kinds
from ..modeling.candidates import Candidate
from ..modeling.module import Module, build_network, check_network
from ..provenance import write_json
from ..settings import SCORE, Settings
from ..tracking import Run
from ..types import Rule
from . import checkpoints
from .health import Health
from .loggers import loggers

HEALTH = "health.json"
LOSSES = ("train/loss", "val/loss")  # by epoch, for the report
OWN = (
    "training.module trains as it likes: no health signs; epoch lines show what it logs under names"
    " that end in /loss; a resume is exact only where its own state is in its checkpoint; where it"
    " optimises by hand, it clips and accumulates itself"
)
SHOWN = ("/loss", *SCORE.values())  # of the metrics, on the line of an epoch
NOT_HERE = (  # warnings
    ".*does not have many workers.*",  # batches are cut from tensors in memory
    ".*number of training batches.*smaller than the logging interval.*",
    "Checkpoint directory .* exists and is not empty.*",  # to resume from
    ".*your dataloader is not resumable.*",  # it finds its place by the trainer
    ".*isinstance\\(treespec, LeafSpec\\).*",
    "Found .* in eval mode",  # layers that a recipe has frozen
)
HAS_PANEL = find_spec(f"{__package__}.panel") is not None  # a lean project has none


def build_module(settings: Settings) -> Module:
    """The configured network, which takes and returns what it must, in its Lightning module: ours,
    or the one of `training.module`.
    """
    network = build_network(settings)
    adapt = getattr(network, "adapt", None)
    if adapt is not None:  # it takes means and scales from the training data
        examples = load(settings, "train")
        adapt(examples.inputs, examples.label)
    check_network(settings, network, first_rows(settings, "train"))
    if settings.training.module:
        return own_module(settings, network)
    module: Any = Module
    if settings.trainer.batches_per_step > 1:
        module = import_module(".throughput", __package__).ChunkModule
    return cast(Module, module(settings, network, label_scale(settings)))


def own_module(settings: Settings, network: nn.Module) -> Module:
    """The owner's LightningModule. Raises ValueError where it is none, or has another network."""
    if settings.training.must_overfit or settings.trainer.batches_per_step > 1:
        keys = "training.must_overfit and trainer.batches_per_step"
        raise ValueError(f"{keys} are of the project's own module: not with training.module")
    component = settings.training.module or {}
    name, build = component["_target_"], instantiate({**component, "_partial_": True})
    module = build(settings=settings, network=network, scale=label_scale(settings))
    if getattr(module, "network", None) is not network or not hasattr(module, "training_step"):
        raise ValueError(f"{name} must be a LightningModule that keeps `network` as self.network")
    if {"settings", "network"} & module.hparams.keys():
        text = 'must not keep everything: save_hyperparameters(ignore=["settings", "network"])'
        raise ValueError(f"{name} {text}")
    return cast(Module, module)


def fit_network(
    settings: Settings,
    run: Run | None,
    *,
    callbacks: Sequence[Callback] = (),
    build: Callable[[Settings], Module] | None = None,
    resume: bool = False,
) -> nn.Module:
    """Trains and returns the network with the weights of its best epoch, for inference on the CPU.

    Without a run, this is one of the other processes of a distributed run: it records and saves
    nothing. `build` makes the module; `callbacks` are added to those of the configuration. With
    `resume`, goes on from what an interrupted call with the same settings has left in
    `paths.state`.
    """
    setup(settings)
    folder = checkpoints.state_folder(settings)
    if run and not resume:
        shutil.rmtree(folder, ignore_errors=True)
    health = Health(settings, run)
    data = DataModule(settings)
    module = (build or build_module)(settings)
    logger = loggers(settings, run) if run and not settings.trainer.fast_dev_run else []
    standard = standard_callbacks(settings, run, with_logger=bool(logger))
    if settings.training.module is None:
        standard.insert(0, health)
    elif run:
        logs.get("train").info(OWN)
    clips = module.automatic_optimization  # otherwise the module does
    trainer = make_trainer(settings, logger, [*standard, *callbacks], clips)
    fit(trainer, module, data, checkpoints.newest(folder) if resume else None)
    if settings.training.must_overfit:
        check_overfit(health.history, module.score)
    if run and not settings.trainer.fast_dev_run:
        save(module, folder, settings.paths.model)
    if run:
        losses = {name: [epoch.get(name) for epoch in health.history] for name in LOSSES}
        report = {"signs": health.report(), "losses": losses if health.history else {}}
        write_json(settings.paths.state / HEALTH, report)
    return module.network.eval().cpu()


def score(settings: Settings, model: Candidate, split: str) -> dict[str, float]:
    """Every metric of a model's plain decisions on a split."""
    kind = kinds.of(settings.data.kind)
    examples = load(settings, split)
    answers = kind.decide(model.outputs(examples.inputs).raw, Rule())
    metrics: dict[str, float] = kind.metrics(answers, examples.label)
    return metrics


def setup(settings: Settings) -> None:
    """Seeds and threads; Lightning's tips, and warnings that do not apply here, are off."""
    torch.set_num_threads(settings.training.num_threads)
    # `trainer.deterministic` would fill all new memory: it is written before it is read here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    L.seed_everything(settings.seed, workers=True, verbose=False)
    quiet()


def quiet() -> None:
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOT_HERE:
        warnings.filterwarnings("ignore", message=message)


class EpochLines(Callback):
    """One line per epoch, and every few seconds of a long one, for terminals that cannot redraw a
    progress bar.
    """

    last = 0.0  # when the epoch began, or something was said

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.on_train_epoch_start(trainer, module)  # inside an epoch that a checkpoint goes on with

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if time.monotonic() - self.last < logs.TOLD_SECONDS:
            return
        self.last = time.monotonic()
        loss = f" loss {float(outputs['loss']):.4f}" if "loss" in (outputs or {}) else ""
        step = f"step {index + 1} of {trainer.num_training_batches}{loss}"
        print(f"  epoch {trainer.current_epoch + 1}/{trainer.max_epochs} {step}", file=sys.stderr)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        values = trainer.callback_metrics.items()
        line = " ".join(f"{name} {float(v):.4f}" for name, v in values if name.endswith(SHOWN))
        print(f"  epoch {trainer.current_epoch + 1}/{trainer.max_epochs} {line}", file=sys.stderr)


def standard_callbacks(settings: Settings, run: Run | None, with_logger: bool) -> list[Callback]:
    """Those of `training.callbacks`, and what the template is built on: checkpoints and records."""
    callbacks: list[Callback] = [instantiate(c) for c in settings.training.callbacks.values() if c]
    if run and not bar(settings):
        callbacks.append(EpochLines())
    if with_logger:
        callbacks.append(LearningRateMonitor())
    # A sharded network answers only when all processes ask.
    if run and with_logger and HAS_PANEL and not settings.trainer.strategy.startswith("fsdp"):
        callbacks.append(import_module(".panel", __package__).Panel(settings, run))
    if not settings.trainer.fast_dev_run:
        callbacks += checkpoints.callbacks(settings)
    return callbacks


def bar(settings: Settings) -> bool:
    """Whether a progress bar is wanted, and can be redrawn."""
    return settings.trainer.enable_progress_bar and sys.stderr.isatty()


def make_trainer(
    settings: Settings, logger: list[Logger], callbacks: list[Callback], clips: bool
) -> L.Trainer:
    """The configured trainer; a module that optimises by hand clips gradients itself."""
    options: dict[str, Any] = settings.trainer.model_dump(exclude={"batches_per_step"})
    options["enable_progress_bar"] = bar(settings)
    if not clips:
        options["gradient_clip_val"] = None
    try:
        return L.Trainer(
            **options,
            default_root_dir=settings.paths.state,
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=not settings.trainer.fast_dev_run,
            enable_model_summary=False,
        )
    except RuntimeError as error:  # SLURM's variables, say, do not fit
        raise ValueError(f"the machine and `trainer` do not fit: {error}") from None


def fit(trainer: L.Trainer, module: Module, data: DataModule, last: Path | None) -> None:
    """Trains, from a checkpoint on where there is one. Raises ValueError where a process that it
    needs is gone.
    """
    try:
        trainer.fit(module, data, ckpt_path=last, weights_only=True if last else None)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    except OSError as error:  # a full disk, say: the message names no file
        text = f"{error}: mend that, and the same command goes on from here"
        raise OSError(f"{trainer.default_root_dir}: {text}") from error
    except RuntimeError as error:
        if not re.search("DataLoader worker|gloo|NCCL|peer", str(error)):
            raise
        raise ValueError(
            "another process of this training has ended, or cannot be reached: the same command"
            " goes on from here; with less memory in use (training.workers, training.batch_size)"
            " where the system ended it"
        ) from error


def check_overfit(history: list[dict[str, float]], score: str) -> None:
    """Raises ValueError where the errors on one batch did not fall by half."""
    first = 1 - history[0][score]
    last = 1 - history[-1][score]
    if not last < 0.5 * first:
        raise ValueError(
            f"the mean error went from {first:.3f} to {last:.3f} on one batch: the network cannot "
            "learn; look at its loss, learning rate and shapes"
        )


def save(module: Module, folder: Path, target: Path) -> None:
    """Loads the best checkpoint's weights; best and last go to the pipeline's output."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    last = checkpoints.newest(folder)
    best = folder / checkpoints.BEST
    if last is None or not best.is_file():
        raise ValueError(f"the checkpoints in {folder} were damaged: run the same command again")
    checkpoints.save(last, target / "last.ckpt")
    checkpoint = checkpoints.save(best, target / checkpoints.BEST)
    module.load_state_dict(checkpoint["state_dict"])

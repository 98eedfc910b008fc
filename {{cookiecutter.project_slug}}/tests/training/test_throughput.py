"""The loop that calls hooks for every few batches only, beside Lightning's own, which calls them
for each.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from harness import PACKAGE, Project, module
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import MixedPrecision
from safetensors.torch import load_file

fit, checkpoints, datamodule = (
    module("training.fit"),
    module("training.checkpoints"),
    module("data.datamodule"),
)
throughput = module("training.throughput")


TIMES = ("train/samples_per_second", "train/data_wait")


class Memory(Logger):
    """Keeps what is logged, but for speeds."""

    name, version = "memory", "0"

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((step, {k: v for k, v in metrics.items() if k not in TIMES}))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class Rounds(Callback):
    """The batches that callbacks saw, by epoch; may end training as a crash does."""

    def __init__(self, crash: tuple[int, int] | None = None) -> None:
        self.seen: list[tuple[int, int]] = []
        self.crash = crash

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.seen.append((trainer.current_epoch, trainer.fit_loop.batch_idx))
        if self.crash is not None and self.seen[-1] >= self.crash:
            raise RuntimeError("crash")


def fitted(
    settings: Any, every: int, *callbacks: Callback, start: Path | None = None
) -> tuple[L.Trainer, Memory]:
    trainer_settings = settings.trainer.model_copy(update={"batches_per_step": every})
    settings = settings.model_copy(update={"trainer": trainer_settings})
    fit.quiet()
    L.seed_everything(settings.seed, verbose=False)
    logger = Memory()
    own = [LearningRateMonitor(), EarlyStopping("val/loss", patience=2), *callbacks]
    trainer = fit.make_trainer(settings, [logger], own)
    trainer.fit(
        fit.build_module(settings),
        datamodule.DataModule(settings),
        ckpt_path=start,
        weights_only=bool(start) or None,
    )
    return trainer, logger


def weights(trainer: L.Trainer) -> dict[str, torch.Tensor]:
    return dict(trainer.lightning_module.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[k], other[k]) for k in one)


SMALL = [
    *("trainer.max_epochs=2", "trainer.limit_train_batches=23", "trainer.limit_val_batches=2"),
    *("trainer.log_every_n_steps=5", "training.batch_size=16"),
]
WAYS = {
    "as it is": [],
    "accumulation with a rest": ["trainer.accumulate_grad_batches=3"],
    "bf16-mixed": ["trainer.precision=bf16-mixed"],
    "bf16-true": ["trainer.precision=bf16-true"],
    "no clipping": ["trainer.gradient_clip_val=null"],
    "strong clipping": ["trainer.gradient_clip_val=0.001"],
    "some steps": [
        "trainer.max_steps=17",
        "trainer.max_epochs=9",
        "trainer.accumulate_grad_batches=2",
    ],
    "some batches": ["trainer.limit_train_batches=6"],
    "one batch": ["trainer.overfit_batches=1", "trainer.max_epochs=3"],
    "early stopping": ["trainer.max_epochs=6", "optimizer.lr=0"],
    "no logging": ["trainer.log_every_n_steps=0"],
}


@pytest.mark.row("T1", "T3")
@pytest.mark.parametrize("way", WAYS)
def test_weights_steps_and_records_are_those_of_lightning(way: str, trained: Project) -> None:
    settings, rounds = trained.settings(*SMALL, *WAYS[way]), Rounds()
    (plain, wanted), (ours, found) = fitted(settings, 1), fitted(settings, 7, rounds)
    assert isinstance(ours.fit_loop.epoch_loop, throughput.ThroughputLoop)
    assert same(weights(plain), weights(ours))
    assert (ours.global_step, ours.current_epoch) == (plain.global_step, plain.current_epoch)
    assert found.lines == wanted.lines and wanted.lines
    progress = ours.fit_loop.epoch_loop.batch_progress
    assert progress == plain.fit_loop.epoch_loop.batch_progress
    if way != "one batch":
        assert len(rounds.seen) < 0.6 * progress.total.completed


@pytest.mark.parametrize("scheduler", ["plateau", "onecycle", "none"])
def test_schedulers_take_the_same_steps(scheduler: str, trained: Project) -> None:
    text = module("pipeline").compose(
        [f"scheduler={scheduler}", "trainer.enable_progress_bar=false", *SMALL]
    )
    settings = module("settings").parse(yaml.safe_load(text))
    (plain, wanted), (ours, found) = fitted(settings, 1), fitted(settings, 7)
    assert same(weights(plain), weights(ours)) and found.lines == wanted.lines


@pytest.mark.row("T4")
def test_a_training_that_crashed_amid_an_epoch_goes_on_to_the_same_bits(
    trained: Project, tmp_path: Path
) -> None:
    settings = trained.settings(*SMALL)
    whole, wanted = fitted(settings, 7)
    with pytest.raises(RuntimeError, match="crash"):
        fitted(settings, 7, Rounds(crash=(1, 8)), checkpoints.Resume(tmp_path, 0.0))
    start = checkpoints.latest(tmp_path)
    assert start is not None and not start.stem.endswith("-000000000"), (
        "the checkpoint is of an epoch's end"
    )
    again, found = fitted(settings, 7, checkpoints.Resume(tmp_path, 1e9), start=start)
    assert same(weights(whole), weights(again)) and again.global_step == whole.global_step
    (step, values), (wanted_step, wanted_values) = found.lines[-1], wanted.lines[-1]
    assert step == wanted_step and values == pytest.approx(wanted_values, rel=1e-6)


def test_a_profile_is_of_lightnings_own_loop(trained: Project) -> None:
    trainer = fit.make_trainer(
        trained.settings("trainer.batches_per_step=7", "trainer.profiler=simple"), [], []
    )
    assert not isinstance(trainer.fit_loop.epoch_loop, throughput.ThroughputLoop)


@pytest.mark.row("T1")
def test_16_mixed_is_left_to_lightning_and_clips_gradients_that_are_not_scaled(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, name, made = (
        trained.settings(*SMALL, "trainer.max_epochs=1"),
        "train/gradient_norm",
        L.Trainer,
    )

    def half(**options: Any) -> L.Trainer:  # Lightning takes it on a CPU only as a plugin
        plugins = [*options["plugins"], MixedPrecision("16-mixed", "cpu")]
        return made(**{**options, "precision": None, "plugins": plugins})

    _, exact = fitted(settings, 1)
    monkeypatch.setattr(fit.L, "Trainer", half)
    trainer, rough = fitted(settings, 7)
    assert not isinstance(trainer.fit_loop.epoch_loop, throughput.ThroughputLoop)
    (wanted,), (found,) = ([v[name] for _, v in x.lines if name in v] for x in (exact, rough))
    assert found == pytest.approx(wanted, rel=0.2)


def test_clipping_is_that_of_pytorch_and_keeps_the_norm(trained: Project) -> None:
    mine = fit.build_module(trained.settings())
    parameters = list(mine.network.parameters())
    for limit in (0.1, 1e6):
        for p in parameters:
            p.grad = torch.randn_like(p)
        copies = [p.detach().clone() for p in parameters]
        for copy, p in zip(copies, parameters, strict=True):
            copy.grad = p.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(copies, limit)
        mine.gradient = torch.zeros(4)
        mine.clip(parameters, limit)
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(copies, parameters, strict=True))
        assert mine.gradient.tolist() == pytest.approx([float(norm), float(norm), 1, 0])
    parameters[0].grad = torch.full_like(parameters[0], torch.inf)
    mine.clip(parameters, None)
    assert mine.gradient.tolist()[2:] == [2, 1]


@pytest.mark.slow
@pytest.mark.row("T1")
def test_a_cluster_preset_under_torchrun_trains_as_ddp_does(trained: Project) -> None:
    """Two processes started by torchrun, as on the nodes of a cluster, beside two with hooks for
    every batch.
    """
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    cluster = [
        "trainer=cluster",
        "trainer.num_nodes=1",
        "trainer.devices=2",
        "trainer.accelerator=cpu",
    ]
    ways = {
        "torchrun": (
            torchrun,
            [*cluster, "trainer.precision=32-true", "trainer.batches_per_step=8"],
        ),
        "lightning": ([], ["trainer=ddp", "trainer.batches_per_step=1"]),
    }
    own = ["trainer.max_epochs=2", "trainer.deterministic=true"]
    found = {}
    for name, (launcher, preset) in ways.items():
        folder = trained.folder / name
        command = [
            sys.executable,
            "-m",
            *launcher,
            PACKAGE,
            "train",
            *preset,
            *own,
            f"hydra.run.dir={folder}",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "MEMBER: 2/2" in done.stderr and done.stderr.count("epoch 2/2") == 1
        found[name] = load_file(folder / "model" / "network.safetensors")
        assert json.loads((folder / "reports" / "training.json").read_text())["metrics"]
    assert same(found["torchrun"], found["lightning"])

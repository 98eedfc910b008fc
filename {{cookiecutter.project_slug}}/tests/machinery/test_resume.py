"""T4: a training that ends before its time goes on as if nothing had happened."""

import contextlib
import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import SMALL, Project, lay_out, module
from safetensors.torch import load_file

pytestmark = pytest.mark.row("T4")
# Three epochs of six batches, with a checkpoint after each of them.
SHORT = (
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=6",
    "trainer.batches_per_step=1",
    "training.checkpoint_seconds=1e-9",
)


class Killed(BaseException):
    """As good as kill -9: nothing that the package does about errors catches it."""


def at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> None:
    """The numbered call of a function, counted from 1, does not happen: the process is gone."""
    original, count = getattr(owner, name), [0]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        if count[0] == call:
            raise Killed(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)


def weights(project: Project) -> dict[str, torch.Tensor]:
    return load_file(project.settings().paths.model / "network.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def recorded(project: Project, key: str) -> list[tuple[str, int, float]]:
    """Name, step and value of all that training recorded in a run, sorted; `epoch` is Lightning's,
    with each of its.
    """
    lines = module("experiments.journal").Journal(project.settings().paths.records / key).lines()
    values = [
        (k, line["step"], v)
        for line in lines
        if line["kind"] == "metrics"
        for k, v in line["values"].items()
    ]
    return sorted(
        value
        for value in values
        if value[0].startswith(("train/loss", "val/", "lr-", "train.", "val."))
    )


def runs(project: Project) -> dict[str, str]:
    """Last status of each run by key."""
    found = {}
    for one in module("experiments.journal").journals(project.settings().paths.records):
        found[one.key] = (
            [line["status"] for line in one.lines() if line["kind"] == "finish"] or ["RUNNING"]
        )[-1]
    return found


@contextlib.contextmanager
def alone(settings: Any, run: Any) -> Iterator[Any]:
    """A run without the process that delivers it, which other tests look at."""
    with run:
        yield run


@pytest.fixture(scope="module")
def trained_once_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, before = tmp_path_factory.mktemp("resume"), Path.cwd()
    lay_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module("tracking"), "followed", alone)
        for verb in ("ingest", "validate", "split", "train"):
            Project(folder, [*SMALL, *SHORT]).run(verb)
    os.chdir(before)
    return folder


@pytest.fixture
def here(tmp_path: Path, trained_once_here: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of a project that was trained without a break."""
    monkeypatch.setattr(module("tracking"), "followed", alone)
    shutil.copytree(trained_once_here, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, [*SMALL, *SHORT])


POINTS: dict[str, tuple[str, int]] = {
    "in the first epoch": ("modeling.module.Module.training_step", 3),
    "in the first batch of an epoch": ("modeling.module.Module.training_step", 13),
    "in an epoch": ("modeling.module.Module.training_step", 9),
    "between training and validation": ("modeling.module.Module.on_validation_start", 3),
    "in validation": ("modeling.module.Module.validation_step", 3),
    "while writing a checkpoint": ("training.checkpoints.os.fsync", 41),
    "before a checkpoint has its name": ("training.checkpoints.Path.replace", 23),
    "after the last epoch": ("training.fit.restore_best", 1),
    "in the baselines": ("modeling.classical.classical", 1),
    "in saving the candidates": ("modeling.candidates.save_file", 1),
    "in recording the baselines": ("experiments.tracking.Run.artifacts", 1),
}


def target(dotted: str) -> tuple[Any, str]:
    """The object that a dotted name inside of the package is an attribute of, and the attribute's
    name.
    """
    parts = dotted.split(".")
    owner: Any = module(".".join(parts[:2]))
    for part in parts[2:-1]:
        owner = getattr(owner, part)
    return owner, parts[-1]


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_training_ends_with_the_same_weights(
    point: str, here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted, before = weights(here), set(runs(here))
    dotted, call = POINTS[point]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at(patch, *target(dotted), call)
        here.run("train")
    torch.rand(3)  # whatever happens in between
    here.run("train")
    assert same(uninterrupted, weights(here))
    after = {key: status for key, status in runs(here).items() if key not in before}
    assert len(after) == 4 and set(after.values()) == {"FINISHED"}
    assert recorded(here, min(after, key=len)) == recorded(here, min(before, key=len))
    assert not (here.settings().paths.state / "training").exists()


def state(project: Project) -> Path:
    return Path(project.settings().paths.state / "training")


@pytest.fixture
def interrupted(here: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Killed in the third epoch, after two checkpoints of which the older one is of the same epoch."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at(patch, module("modeling.module").Module, "training_step", 16)
        here.run("train")
    return here


@pytest.fixture
def told() -> Iterator[list[str]]:
    """Lines of the training's log."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = module("logs").get("train")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.mark.parametrize("damage", ["cut off", "a bit", "its digest"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: str, interrupted: Project, told: list[str]
) -> None:
    expected, last = weights(interrupted), max(state(interrupted).glob("0*.ckpt"))
    if damage == "its digest":
        last.with_name(f"{last.name}.sha256").unlink()
    else:
        content = bytearray(last.read_bytes())
        content[len(content) // 2] ^= 1
        last.write_bytes(content[: -len(content) // 3] if damage == "cut off" else content)
    interrupted.run("train")
    damaged = [line for line in told if "damaged" in line]
    assert len(damaged) == 1 and damaged[0].endswith(
        f"{last.name} is damaged: going on from the checkpoint before it"
    )
    assert same(expected, weights(interrupted))


def test_where_the_best_checkpoint_is_damaged_training_begins_anew(
    interrupted: Project, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    expected, best = weights(interrupted), state(interrupted) / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-1])
    interrupted.run("train")
    assert "best.ckpt is damaged: training begins anew" in told[0]
    assert "epoch 1/3" in capsys.readouterr().err
    assert same(expected, weights(interrupted))


def test_two_checkpoints_are_kept_and_none_of_them_runs_code(interrupted: Project) -> None:
    found = sorted(path.name for path in state(interrupted).glob("0*.ckpt"))
    assert found == ["000002-000000002.ckpt", "000002-000000003.ckpt"]
    assert not list(state(interrupted).glob(".*.tmp"))
    torch.load(state(interrupted) / found[-1], weights_only=True)


@pytest.mark.parametrize("change", ["optimizer.lr=0.002", "seed=8"])
def test_another_configuration_starts_afresh_and_gives_up_the_old_run(
    interrupted: Project, change: str
) -> None:
    old = json.loads((state(interrupted) / "run.json").read_text(encoding="utf-8"))["key"]
    interrupted.run("train", change)
    found = runs(interrupted)
    new = json.loads(
        (interrupted.settings().paths.reports / "run.json").read_text(encoding="utf-8")
    )["record"]
    assert new != old and found[old] == "KILLED" and found[new] == "FINISHED"


def test_what_does_not_decide_the_weights_may_change(interrupted: Project) -> None:
    expected = weights(interrupted)
    interrupted.run("train", "serving.port=9000")
    assert same(expected, weights(interrupted))
    assert set(runs(interrupted).values()) == {"FINISHED"}


def test_a_full_disk_is_one_line_and_costs_nothing(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, fsync, count = weights(here), os.fsync, [0]

    def full(file: int) -> None:
        count[0] += 1
        if count[0] > 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with (
        monkeypatch.context() as patch,
        pytest.raises(OSError, match="No space left on device") as caught,
    ):
        patch.setattr(os, "fsync", full)
        here.run("train")
    told = module("logs").explain(caught.value)
    assert "\n" not in told and "the same command goes on from here" in told
    assert list(runs(here).values()).count("FAILED") == 1 and not list(state(here).glob(".*.tmp"))
    here.run("train")
    assert same(expected, weights(here)) and set(runs(here).values()) == {"FINISHED"}


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "a.ckpt", list[int]()
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(file))
    module("training.checkpoints").write(path, b"old")
    assert len(synced) == (
        2 if os.name == "posix" else 1
    )  # the file, and the folder that holds its name

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.ckpt: No space left on device"):
        module("training.checkpoints").write(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_loss_that_is_not_finite_is_one_line_and_leaves_a_failed_run(here: Project) -> None:
    with pytest.raises(
        ValueError, match=r"the loss is not finite in epoch 1, by step \d+ .*: try "
    ) as caught:
        here.run("train", "optimizer.lr=1.0e+30")
    assert "\n" not in module("logs").explain(caught.value)
    assert list(runs(here).values()).count("FAILED") == 1


def test_a_second_training_waits_for_the_first(here: Project, told: list[str]) -> None:
    settings, inside, ended = here.settings(), threading.Event(), threading.Event()

    def hold() -> None:
        with module("training.checkpoints").lock(settings):
            inside.set()
            ended.wait(60)

    first, second = threading.Thread(target=hold), threading.Thread(target=hold)
    first.start()
    assert inside.wait(60)
    inside.clear()
    second.start()
    deadline = time.monotonic() + 60
    while not told and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (
        told == ["another training works in this folder: waiting for it to end"]
        and not inside.is_set()
    )
    ended.set()
    assert inside.wait(60)
    first.join(60)
    second.join(60)


def test_a_killed_training_in_great_steps_ends_with_the_same_weights(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most batches pass without a round of hooks there; gradients of two are added up; rates change
    in every step.
    """
    great = [
        "trainer.limit_train_batches=12",
        "trainer.batches_per_step=4",
        "trainer.accumulate_grad_batches=2",
        "training.batch_size=8",
    ]
    here.run("train", *great)
    expected = weights(here)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at(patch, module("modeling.module").Module, "training_step", 23)
        here.run("train", *great)
    assert max(state(here).glob("0*.ckpt")).name == "000001-000000008.ckpt"
    here.run("train", *great)
    assert same(expected, weights(here))


def test_what_stopped_early_trains_no_further(
    here: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = module("training.fit")
    monkeypatch.setattr(
        fit, "EarlyStopping", partial(fit.EarlyStopping, stopping_threshold=1e9)
    )  # after one epoch
    here.run("train")
    expected = weights(here)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at(patch, *target("modeling.classical.classical"), 1)
        here.run("train")
    assert not {path.name for path in state(here).glob("0*.ckpt")} - {
        "000000-000000005.ckpt",
        "000001-000000000.ckpt",
    }
    here.run("train")
    assert same(expected, weights(here))

"""T4: points at which a training may be killed, and what it goes on with."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Project, module
from safetensors.torch import load_file

pytestmark = pytest.mark.row("T4")
SHORT = ("trainer.max_epochs=3", "trainer.limit_train_batches=6")
STEP = ("modeling.module", "Module", "training_step")
POINTS: dict[str, tuple[tuple[str, str, str], int]] = {  # the call that does not happen
    "in the first epoch": (STEP, 3),
    "in the first batch of an epoch": (STEP, 13),
    "in validation": (("modeling.module", "Module", "validation_step"), 4),
    "after the last epoch": (("training.checkpoints", "", "save"), 1),
    "in saving the candidates": (("modeling.candidates", "", "save_file"), 1),
}


class Killed(BaseException):
    """As good as kill -9: nothing that the package does about errors catches it."""


def weights(project: Project) -> dict[str, torch.Tensor]:
    return load_file(project.settings().paths.model / "network.safetensors")


def run_killed(
    patch: pytest.MonkeyPatch,
    project: Project,
    place: tuple[str, str, str],
    call: int,
    *more: str,
) -> None:
    owner: Any = module(place[0])
    owner = getattr(owner, place[1]) if place[1] else owner
    original, count = getattr(owner, place[2]), [0]

    def dying(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] == call:
            raise Killed
        return original(*arguments)

    with patch.context() as patched, pytest.raises(Killed):
        patched.setattr(owner, place[2], dying)
        project.run("train", *SHORT, *more)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_training_ends_with_the_same_weights(
    point: str, trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.run("train", *SHORT)
    expected = weights(trained)
    run_killed(monkeypatch, trained, *POINTS[point])
    torch.rand(3)  # whatever happens in between
    trained.run("train", *SHORT)
    assert all(torch.equal(value, weights(trained)[name]) for name, value in expected.items())


def test_inside_an_epoch_it_goes_on_with_the_batch_that_was_next(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    often = "training.checkpoint_seconds=1e-6"
    run_killed(monkeypatch, trained, STEP, 10, often)
    state = Path(trained.settings().paths.state / "training")
    newest = module("training.checkpoints").newest(state)
    assert newest is not None and newest.name == "inside.ckpt"
    model, steps = module("modeling.module").Module, list[int]()
    original = model.training_step

    def counted(*arguments: Any) -> Any:
        steps.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(model, "training_step", counted)
    trained.run("train", *SHORT, often)
    assert steps == [3, 4, 5, *range(6)]


def test_a_second_training_waits_for_the_first(trained: Project) -> None:
    settings, inside, ended = trained.settings(), threading.Event(), threading.Event()

    def hold() -> None:
        with module("training.checkpoints").lock(settings):
            inside.set()
            ended.wait(60)

    first, second = threading.Thread(target=hold), threading.Thread(target=hold)
    first.start()
    assert inside.wait(60)
    inside.clear()
    second.start()
    assert not inside.wait(0.3)
    ended.set()
    assert inside.wait(60)
    first.join(60)
    second.join(60)

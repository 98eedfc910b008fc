"""T4: a training that ends before its time goes on; machinery/test_kill_points.py has the rest."""

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Project, module
from safetensors.torch import load_file

pytestmark = pytest.mark.row("T4")
SHORT = ("trainer.max_epochs=3", "trainer.limit_train_batches=6")


class Killed(BaseException):
    """As good as kill -9: nothing that the package does about errors catches it."""


def weights(project: Project) -> dict[str, torch.Tensor]:
    return load_file(project.settings().paths.model / "network.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def kill_at_step(monkeypatch: pytest.MonkeyPatch, project: Project, step: int) -> None:
    """Trains until a step, counted from 1, which does not happen."""
    model = module("modeling.module").Module
    original, calls = model.training_step, [0]

    def training_step(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == step:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(model, "training_step", training_step)
        project.run("train", *SHORT)


def state(project: Project) -> Path:
    return Path(project.settings().paths.state / "training")


def test_a_killed_training_ends_with_the_same_weights(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.run("train", *SHORT)
    expected = weights(trained)
    kill_at_step(monkeypatch, trained, 16)  # in the third epoch
    newest = module("training.checkpoints").newest(state(trained))
    assert newest is not None and newest.name == "0001.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])  # damaged: the one before is taken
    torch.rand(3)  # whatever happens in between
    trained.run("train", *SHORT)
    assert same(expected, weights(trained))
    assert not state(trained).exists()


def test_another_configuration_starts_afresh(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at_step(monkeypatch, trained, 10)
    checkpoints, settings = module("training.checkpoints"), trained.settings(*SHORT)
    key = checkpoints.claim(settings)
    assert checkpoints.claim(trained.settings(*SHORT, "serving.port=9000")) == key
    assert checkpoints.claim(trained.settings(*SHORT, "seed=8")) != key
    assert not list(state(trained).glob("*.ckpt"))


def test_outputs_do_not_name_the_folder_they_were_made_in(trained_once: Path) -> None:
    for name in ("best.ckpt", "last.ckpt", "network.safetensors"):
        content = (trained_once / "artifacts/model" / name).read_bytes()
        assert str(trained_once).encode() not in content, name


def test_a_disk_that_fails_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, path = module("training.checkpoints"), tmp_path / "0001.ckpt"
    torch.save({}, path)

    def load(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(torch, "load", load)
        checkpoints.newest(tmp_path)
    assert checkpoints.newest(tmp_path) == path

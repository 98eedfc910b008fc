import copy
import subprocess
import sys

import pytest
import torch
import yaml
from harness import PACKAGE, Project, module
from safetensors.torch import load_file


def weights(project: Project, *overrides: str) -> dict[str, torch.Tensor]:
    project.run("train", "trainer.max_epochs=2", *overrides)
    return load_file(project.settings().paths.model / "network.safetensors")


@pytest.mark.row("T3")
def test_the_same_seed_gives_the_same_bits(trained: Project) -> None:
    first, again, other = weights(trained), weights(trained), weights(trained, "seed=8")
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def preset(trained: Project, name: str, *overrides: str) -> None:
    """Trains with a debug preset, as `train debug=<name>` does."""
    text = module("pipeline").compose([f"debug={name}", "trainer.enable_progress_bar=false", *overrides])
    module("training.train").train(module("settings").parse(yaml.safe_load(text)))


@pytest.mark.row("T2")
@pytest.mark.parametrize("name", ["fast", "limit", "profiler", "anomaly"])
def test_debug_presets_run(name: str, trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fit = module("training.fit")
    original = fit.L.Trainer

    def spy(**options):  # type: ignore[no-untyped-def]
        seen.append(copy.copy(options))
        return original(**options)

    monkeypatch.setattr(fit.L, "Trainer", spy)
    preset(trained, name)
    wanted = {
        "fast": ("fast_dev_run", True),
        "limit": ("limit_train_batches", 3),
        "profiler": ("profiler", "simple"),
        "anomaly": ("detect_anomaly", True),
    }
    key, value = wanted[name]
    assert seen[0][key] == value


@pytest.mark.row("T2")
def test_overfitting_one_batch_passes_and_fails_where_nothing_is_learned(trained: Project) -> None:
    preset(trained, "overfit")
    with pytest.raises(ValueError, match="the network cannot learn"):
        preset(trained, "overfit", "optimizer.lr=0")


@pytest.mark.row("T2")
def test_anomaly_detection_names_the_operation(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(torch.nn.Module):
        def forward(self, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return (raw.mean() - 1e9).sqrt()

    monkeypatch.setattr(module("modeling.losses"), "default", lambda kind: Broken())
    with pytest.warns(UserWarning, match="Error detected in SqrtBackward0"), pytest.raises(RuntimeError, match="nan"):
        preset(trained, "anomaly")


@pytest.mark.slow
@pytest.mark.row("T1")
def test_two_processes_train_one_model_with_one_record(trained: Project) -> None:
    settings = trained.settings()
    client = module("experiments.tracking").client(settings)
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    before = len(client.search_runs([experiment.experiment_id]))
    command = [sys.executable, "-m", PACKAGE, "train", "trainer=ddp", "trainer.max_epochs=2"]
    done = subprocess.run(command, cwd=trained.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr and done.stderr.count("epoch 2/2") == 1
    assert len(client.search_runs([experiment.experiment_id])) == before + 4  # the network and three baselines
    assert len(list(trained.folder.glob("outputs/*/*/model/network.safetensors"))) == 1


def test_a_failed_training_is_marked_failed(trained: Project) -> None:
    client = module("experiments.tracking").client(trained.settings())
    experiment = client.get_experiment_by_name(trained.settings().tracking.experiment)
    with pytest.raises(Exception, match=r"torch\.nonsense"):
        trained.run("train", "model._target_=torch.nonsense")
    assert client.search_runs([experiment.experiment_id], max_results=1)[0].info.status == "FAILED"


def test_best_and_last_checkpoints_are_kept(trained: Project) -> None:
    assert {p.name for p in trained.settings().paths.model.iterdir()} >= {
        "best.ckpt",
        "last.ckpt",
        "network.safetensors",
        "classical.skops",
    }

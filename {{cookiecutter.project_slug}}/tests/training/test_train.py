import subprocess
import sys

import pytest
import torch
from harness import PACKAGE, Project, module
from safetensors.torch import load_file


def weights(project: Project, *overrides: str) -> dict[str, torch.Tensor]:
    project.run("train", "trainer.max_epochs=2", *overrides)
    return load_file(project.settings().paths.model / "network.safetensors")


@pytest.mark.slow
@pytest.mark.row("T3")
def test_the_same_seed_gives_the_same_bits(trained: Project) -> None:
    first, again, other = weights(trained), weights(trained), weights(trained, "seed=8")
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


@pytest.mark.slow
@pytest.mark.row("T1")
def test_two_processes_train_one_model_with_one_record(trained: Project) -> None:
    settings = trained.settings()
    client = module("tracking").client(settings)
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    before = len(client.search_runs([experiment.experiment_id]))
    command = [sys.executable, "-m", PACKAGE, "train", "trainer=ddp", "trainer.max_epochs=2"]
    done = subprocess.run(command, cwd=trained.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr and done.stderr.count("epoch 2/2") == 1
    assert (
        len(client.search_runs([experiment.experiment_id])) == before + 4
    )  # the network and three baselines
    assert len(list(trained.folder.glob("outputs/*/*/model/network.safetensors"))) == 1


def test_other_processes_of_a_distributed_run_keep_no_record(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[object]()
    monkeypatch.setattr(
        module("training.fit"), "fit_network", lambda _, run, resume: asked.append(run)
    )
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "3")
            assert module("training.train").train(trained.settings()) == {}
    assert asked == [None] * 3


def test_a_failed_training_is_marked_failed(trained: Project) -> None:
    client = module("tracking").client(trained.settings())
    experiment = client.get_experiment_by_name(trained.settings().tracking.experiment)
    with pytest.raises(Exception, match=r"torch\.nonsense"):
        trained.run("train", "model._target_=torch.nonsense")
    assert client.search_runs([experiment.experiment_id], max_results=1)[0].info.status == "FAILED"

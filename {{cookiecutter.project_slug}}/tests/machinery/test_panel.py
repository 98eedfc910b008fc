from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import Project, module
from safetensors.torch import load_file

panel = module("training.panel")


def run_files(project: Project, folder: str) -> dict[str, bytes]:
    """Files of the trained run in one of its artefact folders, by name."""
    settings, tracking = project.settings(), module("tracking")
    run_file = module("provenance").read_json(settings.paths.reports / tracking.RUN_FILE)
    client = tracking.client(settings)
    run = tracking.find_record(client, settings.tracking.experiment, run_file["record"])
    local = Path(client.download_artifacts(run.info.run_id, folder))
    return {path.name: path.read_bytes() for path in sorted(local.iterdir())}


def test_rows_are_of_all_classes_in_turn_and_follow_from_the_seed() -> None:
    label = np.array([0] * 50 + [1] * 3 + [2] * 40)
    rows = panel.choose(label, seed=1, num=9)
    assert np.bincount(label[rows]).tolist() == [3, 3, 3] and len({*rows.tolist()}) == 9
    assert np.array_equal(rows, panel.choose(label, seed=1, num=9))
    assert not np.array_equal(rows, panel.choose(label, seed=2, num=9))
    assert len(panel.choose(label[:5], seed=1)) == 5
    values = np.random.default_rng(0).normal(size=40)
    assert (np.diff(values[panel.choose(values, seed=1)]) >= 0).all()


@pytest.mark.row("E4")
def test_every_epoch_leaves_its_answers_on_the_same_rows(trained: Project) -> None:
    files, settings = run_files(trained, "panel"), trained.settings()
    epochs = settings.trainer.max_epochs
    assert [*files] == [f"epoch-{i + 1:03}.{module('task.view').SUFFIX}" for i in range(epochs)]
    assert len({*files.values()}) == epochs  # the answers changed
    assert max(map(len, files.values())) < 100_000


def test_answers_are_shown_beside_the_truth(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []

    def keep(inputs: Any, said: Any, of: Any) -> bytes:
        shown.append((inputs, said))
        return b""

    monkeypatch.setattr(panel.view, "view", keep)
    trained.run("train", "trainer.max_epochs=1")
    (inputs, said), settings = shown[0], trained.settings()
    answers = module("modeling.candidates").load(trained.settings())["network"].outputs(inputs).raw
    decided = (
        module("modeling.kinds").of(settings.data.kind).decide(answers, module("types").Rule())
    )
    truth = panel.examples(settings)[1]
    if settings.data.labels:
        assert said["said"].tolist() == [settings.data.labels[i] for i in decided.label]
        assert said["wrong"].tolist() == (decided.label != truth).tolist()
    else:
        assert np.allclose(said["said"], decided.value, rtol=1e-4) and np.array_equal(
            said["truth"], truth
        )


@pytest.mark.slow
def test_looking_changes_nothing(trained: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights() -> dict[str, torch.Tensor]:
        trained.run("train", "trainer.max_epochs=2")
        return load_file(trained.settings().paths.model / "network.safetensors")

    looked = weights()
    monkeypatch.setattr(module("training.fit"), "HAS_PANEL", False)
    plain = weights()
    assert all(torch.equal(looked[name], plain[name]) for name in looked)

import json
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from harness import NONE, Project, module

bundle, package, promote, registry = (
    module(f"packaging.{n}") for n in ("bundle", "package", "promote", "registry")
)


@pytest.mark.row("P1")
def test_a_bundle_holds_all_that_serving_needs_and_nothing_that_runs_on_load(
    trained: Project,
) -> None:
    found = bundle.Bundle.load(trained.settings().paths.bundle)
    names = {p.name for p in found.folder.iterdir()}
    assert names == {
        "manifest.json",
        "model.onnx",
        "bundle.json",
        "params.yaml",
        "evaluation.json",
        "reference.npz",
        "examples.json",
    }
    evaluation = module("provenance").read_json(found.folder / "evaluation.json")
    assert found.card.decision.model_dump(mode="json") == evaluation["decision"]
    answers = {"value", "deviation"} if found.card.kind == "regression" else {"probabilities"}
    reference = found.reference
    assert set(reference) - {"embedding"} == {*answers, "signals", "signal_names", "labels"}
    assert {len(values) for name, values in reference.items() if name != "signal_names"} == {
        len(reference["labels"])
    }
    assert len(reference["labels"]) > 50
    content = (found.folder / "model.onnx").read_bytes()
    assert str(trained.folder).encode() not in content and b"site-packages" not in content


@pytest.mark.row("P1")
@pytest.mark.parametrize("name", ["model.onnx", "bundle.json", "reference.npz"])
def test_a_changed_or_missing_file_is_refused_by_name(name: str, trained: Project) -> None:
    folder = trained.settings().paths.bundle
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=name):
        bundle.Bundle.load(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=name):
        bundle.Bundle.load(folder)


@pytest.mark.row("P2")
@pytest.mark.parametrize("candidate", ["network", "classical"])
def test_the_bundle_answers_as_the_training_model_does(candidate: str, trained: Project) -> None:
    path = trained.settings().paths.reports / "evaluation.json"
    content = module("provenance").read_json(path)
    module("provenance").write_json(path, {**content, "candidate": candidate})
    assert trained.run("package") == 0
    found = bundle.Bundle.load(trained.settings().paths.bundle)
    assert found.card.candidate == candidate and package.parity(found, trained.settings()) < 1e-4
    one = package.rows_of(
        module("data.datamodule").load(trained.settings(), "test").inputs, np.arange(1)
    )
    assert found.infer(one)["raw"].shape == (1, found.card.outputs["raw"].shape[1])


@pytest.mark.row("P2")
def test_a_model_that_answers_differently_fails_its_parity(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = bundle.Bundle.load(trained.settings().paths.bundle)
    infer = bundle.Bundle.infer
    monkeypatch.setattr(
        bundle.Bundle,
        "infer",
        lambda self, inputs: {
            k: v + np.eye(1, v.shape[1], dtype=np.float32) for k, v in infer(self, inputs).items()
        },
    )
    assert package.verdicts(found, trained.settings())[0]["outcome"] == "fail"


def test_packaging_again_gives_the_same_identity(trained: Project) -> None:
    before = bundle.Bundle.load(trained.settings().paths.bundle).identity
    trained.run("package")
    assert bundle.Bundle.load(trained.settings().paths.bundle).identity == before


def alias(trained: Project, name: str) -> str | None:
    version = registry.by_alias(trained.settings(), name)
    return str(version.version) if version else None


@pytest.mark.slow
@pytest.mark.row("P3")
def test_promote_pull_refuse_and_roll_back(trained: Project) -> None:
    settings = trained.settings()
    assert trained.run("promote") == 0 and trained.run("pull") == 0
    assert alias(trained, "champion") == "1"
    current = json.loads((settings.paths.live / "current.json").read_text(encoding="utf-8"))
    assert current["champion"]["identity"] == bundle.Bundle.load(settings.paths.bundle).identity
    assert trained.run("promote") == 0 and len(registry.decisions(settings)) == 1  # nothing new

    trained.run("train", "seed=9", "trainer.max_epochs=5")
    assert trained.run("evaluate") == trained.run("package") == 0
    assert (
        promote.run(trained.settings(), Namespace(override="testing the rollback")) == 0
        and trained.run("pull") == 0
    )
    assert alias(trained, "champion") == "2"
    rollback = module("packaging.rollback")
    assert (
        rollback.run(settings, Namespace(reason="testing, once more")) == 0
        and alias(trained, "champion") == "1"
    )
    assert trained.run("promote") == 3  # what was rolled back does not come back by itself
    assert (
        alias(trained, "champion") == "1"
        and "testing, once more" in registry.decisions(settings)[-1]["why"][0]
    )
    live = json.loads((settings.paths.live / "current.json").read_text(encoding="utf-8"))
    assert live == {**current, "challenger": live["challenger"]}
    with pytest.raises(
        ValueError, match="no earlier champion"
    ):  # and not to the one that was taken out
        trained.run("rollback")
    assert [d["action"] for d in registry.decisions(settings)] == [
        "promote",
        "promote",
        "rollback",
        "refuse",
    ]


def test_pull_mends_what_is_damaged_in_live(trained: Project) -> None:
    live = trained.settings().paths.live
    assert trained.run("promote") == trained.run("pull") == 0
    champion = (
        live / json.loads((live / "current.json").read_text(encoding="utf-8"))["champion"]["path"]
    )
    (champion / "model.onnx").write_bytes(b"broken")
    assert trained.run("pull") == 0 and bundle.Bundle.load(champion)
    (live / "current.json").write_text("broken", encoding="utf-8")
    assert trained.run("pull") == 0
    assert (
        json.loads((live / "current.json").read_text(encoding="utf-8"))["champion"]["path"]
        == champion.name
    )


@pytest.mark.row("P3")
def test_a_refused_bundle_moves_nothing_and_leaves_a_record(trained: Project) -> None:
    path = trained.settings().paths.reports / "evaluation.json"
    content = module("provenance").read_json(path)
    content["methods"]["M10"] |= {"outcome": "fail", "why": "off by a mile"}
    module("provenance").write_json(path, content)
    trained.run("package")
    assert promote.run(trained.settings(), NONE) == promote.run(trained.settings(), NONE) == 3
    assert alias(trained, "champion") is None
    (record,) = registry.decisions(trained.settings())
    assert record["action"] == "refuse" and "off by a mile" in record["why"][0]
    with pytest.raises(ValueError, match="no champion"):
        trained.run("pull")


def test_reports_of_another_bundle_are_not_promoted(trained: Project) -> None:
    other = Path("other")
    shutil.copytree(trained.settings().paths.bundle, other)
    (other / "note.txt").write_text("another bundle")
    bundle.seal(other)
    with pytest.raises(ValueError, match="do not belong to this bundle"):
        trained.run("promote", f"paths.bundle={other}")

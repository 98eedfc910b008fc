"""What packaging and pulling do where something is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from harness import Project, module

bundle, package = (module(f"packaging.{n}") for n in ("bundle", "package"))


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
    assert package.verdicts(found, trained.settings())[0].outcome == "fail"


def test_packaging_again_gives_the_same_identity(trained: Project) -> None:
    before = bundle.Bundle.load(trained.settings().paths.bundle).identity
    trained.run("package")
    assert bundle.Bundle.load(trained.settings().paths.bundle).identity == before


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


def test_reports_of_another_bundle_are_not_promoted(trained: Project) -> None:
    other = Path("other")
    shutil.copytree(trained.settings().paths.bundle, other)
    (other / "note.txt").write_text("another bundle")
    bundle.seal(other)
    with pytest.raises(ValueError, match="do not belong to this bundle"):
        trained.run("promote", f"paths.bundle={other}")

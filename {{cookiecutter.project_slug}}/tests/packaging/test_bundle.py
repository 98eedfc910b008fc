import json
from argparse import Namespace
from typing import Any

import numpy as np
import pytest
from harness import NONE, Project, module

bundle, champions, package, promote, registry = (
    module(f"packaging.{n}") for n in ("bundle", "champion", "package", "promote", "registry")
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
def test_a_changed_or_missing_file_is_refused_by_name(trained: Project) -> None:
    folder = trained.settings().paths.bundle
    for name in ("model.onnx", "bundle.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match=name):
            bundle.Bundle.load(folder)
        (folder / name).unlink()
        with pytest.raises(ValueError, match=name):
            bundle.Bundle.load(folder)
        (folder / name).write_bytes(content)


@pytest.mark.row("P2")
def test_the_bundle_answers_as_the_training_model_does(trained: Project) -> None:
    path = trained.settings().paths.reports / "evaluation.json"
    content, test = json.loads(path.read_bytes()), module("data.datamodule")
    one = package.rows_of(test.load(trained.settings(), "test").inputs, np.arange(1))
    for candidate in ("network", "classical"):
        module("provenance").write_json(path, {**content, "candidate": candidate})
        assert trained.run("package") == 0
        made = bundle.Bundle.load(trained.settings().paths.bundle)
        assert made.card.candidate == candidate
        assert package.verdicts(made, trained.settings())[0].number < 1e-4
        assert made.infer(one)["raw"].shape == (1, made.card.outputs["raw"].shape[1])


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

    path = settings.paths.reports / "evaluation.json"
    evaluation = module("provenance").read_json(path)
    other = "network" if evaluation["candidate"] == "classical" else "classical"
    module("provenance").write_json(path, {**evaluation, "candidate": other})
    assert trained.run("package") == 0
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
    assert alias(trained, "champion") == "1" and "testing, once more" in str(
        registry.decisions(settings)[-1]["why"]
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


@pytest.mark.row("P3")
def test_promote_shows_the_gate_and_writes_it(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, read = trained.settings(), module("provenance").read_json
    code = promote.run(settings, Namespace(override="only for this test"))
    content = read(settings.paths.reports / "promotion.json")
    assert code == 0 == content["exit"] and content["decision"] == "promote"
    methods = [row["method"] for row in content["gate"]]
    assert (
        set(read(settings.paths.reports / "evaluation.json")["methods"]) < {*methods}
        and "P2" in methods
    )
    shown = capsys.readouterr().err
    assert all(row["title"].split()[0] in shown for row in content["gate"])
    bundle = module("packaging.bundle").Bundle.load(settings.paths.bundle)
    assert content["provenance"]["bundle"] == bundle.identity
    aliases = {n: registry.by_alias(settings, n).version for n in ("champion", "best")}
    assert set(map(str, aliases.values())) == {"1"}
    # Beside itself a model is neither worse nor of another kind.
    verdict = champions.against(
        settings, bundle, "champion", registry.by_alias(settings, "champion")
    )
    assert verdict.outcome == "pass" and verdict.details["difference"] == 0


def row(outcome: str) -> dict[str, Any]:
    empty = {"title": "t", "why": "w", "number": None, "threshold": None}
    return {"method": "M6", "outcome": outcome, **empty}


@pytest.mark.row("P3", "M6")
def test_the_gate_decides() -> None:
    for outcome, champion, override, action, words in (
        ("pass", True, None, "promote", "all gates passed"),
        ("cannot tell", False, None, "promote", "no champion yet"),
        ("cannot tell", True, None, "cannot tell", "M6 t: w"),
        ("fail", True, None, "refuse", "M6 t: w"),
        ("fail", True, "a reason", "promote", "override: a reason"),
    ):
        decision = promote.decide([row("not applicable"), row(outcome)], champion, override)
        assert decision.action == action and words in decision.why[0]

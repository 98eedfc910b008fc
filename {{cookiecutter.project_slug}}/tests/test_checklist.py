import json
from pathlib import Path

import pytest
import yaml
from harness import Project, module

checklist = module("checklist")


def status(project: Project, row: str) -> dict[str, str]:
    rows = yaml.safe_load(Path("checklist.yaml").read_text(encoding="utf-8"))
    entry = {**rows[row]}
    entry["proof"] = [p for p in entry["proof"] if "tests" not in p]
    return dict(checklist.judge(row, entry, project.settings(), {}))


def test_every_row_is_there_with_a_status(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module("__main__").main(["checklist", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = [
        f"{letter}{i}"
        for letter, count in (
            ("D", 7),
            ("M", 12),
            ("T", 8),
            ("E", 11),
            ("P", 7),
            ("S", 11),
            ("O", 9),
        )
        for i in range(1, count + 1)
    ]
    assert list(found) == wanted
    assert {s["status"] for s in found.values()} <= {
        "proven",
        "not yet",
        "unanswered",
        "not applicable",
    }
    assert all(s["proof"] for s in found.values())


def test_a_report_proves_its_row(trained: Project) -> None:
    assert status(trained, "M8")["status"] == "proven"
    assert status(trained, "P1")["status"] == "proven"


def test_a_report_of_other_data_code_or_bundle_proves_nothing(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained.settings().paths.reports / "package.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("code", "data", "bundle"):
        module("provenance").write_json(
            path, {**content, "provenance": {**content["provenance"], key: "0" * 64}}
        )
        assert status(trained, "P2") == {"status": "not yet", "proof": f"the {key} changed since"}


def test_an_empty_or_missing_report_proves_nothing(trained: Project) -> None:
    path = trained.settings().paths.reports / "evaluation.json"
    path.write_text("{}", encoding="utf-8")
    assert status(trained, "M8")["status"] == "not yet"
    path.unlink()
    assert status(trained, "M8")["status"] == "not yet"


def test_tests_prove_a_row_only_for_the_code_they_ran_on(trained: Project) -> None:
    path = trained.settings().paths.reports / "tests.json"
    for code, outcome, wanted in (
        (module("provenance").source_code(), "passed", "proven"),
        ("0", "passed", "not yet"),
        (module("provenance").source_code(), "failed", "not yet"),
    ):
        module("provenance").write_json(
            path, {"code": code, "rows": {"T3": {"tests/x.py::test": outcome}}}
        )
        assert (
            checklist.judge("T3", {"proof": [{"tests": True}]}, trained.settings(), {})["status"]
            == wanted
        )


def test_questions_count_as_answered_for_the_data_they_speak_of(trained: Project) -> None:
    name = trained.settings().data.name
    Path("docs/design.md").write_text(
        f"Answers for the data set: {name}\n\n## Data\n> The question?\n\n", encoding="utf-8"
    )
    assert checklist.answered("Data", trained.settings()) is None
    Path("docs/design.md").write_text(
        f"Answers for the data set: {name}\n\n## Data\n> The question?\n\nOurs.\n", encoding="utf-8"
    )
    assert checklist.answered("Data", trained.settings()) == "Ours."
    Path("docs/design.md").write_text(
        "Answers for the data set: another\n\n## Data\nOurs.\n", encoding="utf-8"
    )
    assert checklist.answered("Data", trained.settings()) is None

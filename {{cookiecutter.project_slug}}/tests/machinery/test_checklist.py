import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, Project, dvc, module

checklist, write_json = module("checklist"), module("provenance").write_json
STATUSES = {"proven", "not yet", "unanswered", "not applicable"}
ROWS = {"D": 7, "M": 12, "T": 8, "E": 11, "P": 7, "S": 11, "O": 9}


@pytest.fixture(scope="module")
def recorded_once(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained project whose outputs DVC has recorded, with the package where DVC looks for it."""
    folder = tmp_path_factory.mktemp("recorded")
    shutil.copytree(trained_once, folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "not_applicable.yaml"):
        shutil.copy(ROOT / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        subprocess.run(["git", "init", "--quiet"], check=True)
        dvc("init", "--quiet", check=True)
        for path in ["reports/invalid_rows.csv", "reports/run.json"]:
            Path(path).touch()
        dvc("commit", "--force", "--quiet", check=True)
    return folder


@pytest.fixture
def recorded(recorded_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    shutil.copytree(recorded_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield module("params").load([])


def statuses(settings: Any, *rows: str) -> list[tuple[str, str]]:
    """Of rows, without what their tests prove."""
    project, judged = checklist.project_now(settings), []
    entries = yaml.safe_load(Path("checklist.yaml").read_text(encoding="utf-8"))
    for row in rows:
        proofs = [proof for proof in entries[row]["proof"] if "tests" not in proof]
        judged.append(checklist.judge(row, {**entries[row], "proof": proofs}, project))
    return judged


def test_every_row_has_a_status(recorded: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert module("__main__").main(["checklist", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [f"{letter}{i + 1}" for letter, n in ROWS.items() for i in range(n)]
    assert {row["status"] for row in found.values()} <= STATUSES
    assert all(row["proof"] for row in found.values())


def test_reports_and_bundle_prove_their_rows(recorded: Any) -> None:
    for status, proof in statuses(recorded, "D7", "M8", "P1", "P2"):
        assert status == "proven", proof


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("src/{}/evaluation/verdict.py", "evaluate"),
        ("data/splits/train.parquet", "split"),
        ("params.yaml", "evaluate"),
        ("reports/evaluation.json", "evaluate"),
    ],
)
def test_what_changes_makes_the_proof_stale(path: str, stage: str, recorded: Any) -> None:
    changed = Path(path.format(module("__main__").__package__))
    if path == "params.yaml":
        text = changed.read_text(encoding="utf-8").replace("max_ece: 0.05", "max_ece: 0.04")
        changed.write_text(text, encoding="utf-8")
    else:
        with changed.open("ab") as file:
            file.write(b"\n")
    [(status, reason)] = statuses(recorded, "M8")
    assert status == "not yet" and stage in reason and "run `make pipeline`" in reason


def test_a_report_of_another_bundle_proves_nothing(recorded: Any) -> None:
    stamp = module("provenance").stamp(recorded, "monitor", "0" * 64)
    write_json(Path("reports/monitor.json"), {"verdict": "alarm", "provenance": stamp})
    assert "monitor.json speaks of changed since" in statuses(recorded, "O3")[0][1]


def test_an_empty_or_missing_report_proves_nothing(recorded: Any) -> None:
    [(_, reason)] = statuses(recorded, "S10")
    assert reason == "there is no reports/replay.json: run serve, then replay"
    write_json(Path("reports/replay.json"), {})
    assert "different is missing or not as it should be" in statuses(recorded, "S10")[0][1]


@pytest.mark.parametrize("name", ["tests.json", "machinery.json"])
def test_tests_prove_a_row_only_for_the_code_they_ran_on(name: str, project: Project) -> None:
    settings, code = project.settings(), module("provenance").source_code()
    present = checklist.Project(settings, {}, code, "full")
    for ran_on, outcome, wanted in (
        (code, "passed", "proven"),
        ("0", "passed", "not yet"),
        (code, "failed", "not yet"),
    ):
        content = {"code": ran_on, "rows": {"T3": {"tests/x.py::test": outcome}}}
        write_json(settings.paths.reports / name, content)
        assert checklist.judge("T3", {"proof": [{"tests": True}]}, present)[0] == wanted


def test_what_only_the_full_profile_has_is_not_applicable_in_lean(project: Project) -> None:
    lean = checklist.Project(project.settings(), {}, "0", "lean")
    assert checklist.judge("T7", {"needs": "full"}, lean)[0] == "not applicable"


def test_questions_count_as_answered_for_the_data_they_speak_of(project: Project) -> None:
    text = "Answers for the data set: ours\n\n## Data\n> The question?\n\n{}\n## Next\nMore.\n"
    for answer in ("", "Ours."):
        Path("docs/design.md").write_text(text.format(answer), encoding="utf-8")
        assert checklist.answer("Data", "ours") == answer
        assert checklist.answer("Data", "another") == ""

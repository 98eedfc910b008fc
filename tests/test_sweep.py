"""A search by several workers on one storage, real PostgreSQL or SQLite, of which one is killed in the middle."""

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Baker, Project, environment_python
from tasks import TASKS
from test_sources import COMPOSE, extras, postgres  # noqa: F401  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.deep]
SEARCH = """
space:
  optimizer.lr: {{low: 3.0e-4, high: 3.0e-2, log: true}}
  model.width: {{choices: [4, 8]}}
pruner: none
warmup_epochs: 0
max_trials: 12
max_minutes: 20
stop_at_goal: false
storage: {storage}
"""
LONG_ENOUGH = ["trainer.max_epochs=15", "training.early_stopping_patience=100", "trainer.enable_progress_bar=false"]


@pytest.fixture
def project(fresh: Baker, extras: Path) -> Project:  # noqa: F811
    project = fresh(task=TASKS[-1].name)
    project.env["PYTHONPATH"] = f"{extras}{os.pathsep}{project.env['PYTHONPATH']}"
    project.python("-c", COMPOSE)
    for verb in ("ingest", "validate", "split"):
        project.python("-m", "my_model", verb)
    return project


def journals(project: Project) -> dict[int, list[dict[str, Any]]]:
    """Lines of the trials' runs, by number."""
    found = {}
    for path in (project.path / ".state" / "records").glob("sweep-*-*/lines.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        found[int(path.parent.name.rpartition("-")[2])] = [json.loads(line) for line in lines if line.endswith("}")]
    return found


def of_kind(lines: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] in kinds]


def command(project: Project, storage: str, workers: int) -> list[object]:
    (project.path / "configs" / "search" / "tiny.yaml").write_text(SEARCH.format(storage=storage), encoding="utf-8")
    verb = [environment_python(), "-m", "my_model", "sweep", "search=tiny", *LONG_ENOUGH]
    return [*verb, "--workers", workers, "--name", "tiny"]


def in_training(known: dict[int, list[dict[str, Any]]]) -> dict[int, list[dict[str, Any]]]:
    return {k: v for k, v in known.items() if len(of_kind(v, "metrics")) > 2 and not of_kind(v, "finish")}


def search_and_kill_one(project: Project, storage: str, workers: int) -> int:
    """Searches with 12 trials and kills the worker of one that trains; returns the number of that trial."""
    deadline, killed = time.monotonic() + 600, None
    with project.started(*command(project, storage, workers)) as process:
        while process.poll() is None:
            assert time.monotonic() < deadline
            known = journals(project)
            trains = in_training(known)
            if killed is None and trains and len(known) > workers:
                killed = min(trains)
                os.kill(of_kind(trains[killed], "start")[-1]["pid"], signal.SIGKILL)
            time.sleep(0.02)
    assert process.returncode == 0, (project.path / "process.log").read_text(encoding="utf-8")
    assert killed is not None
    return killed


def check(project: Project, killed: int) -> None:
    """Twelve trials gave a result, each once; only the killed one began twice."""
    report = json.loads((project.path / "reports" / "sweep.json").read_text(encoding="utf-8"))
    trials = report["trials"]
    assert [t["number"] for t in trials] == list(range(12)) and {t["state"] for t in trials} == {"COMPLETE"}
    assert len({t["params"]["optimizer.lr"] for t in trials}) == 12
    log = (project.path / "logs" / "sweep.jsonl").read_text(encoding="utf-8")
    assert Counter(map(int, re.findall(r"trial (\d+) \(", log))) == Counter(range(12))
    assert f"the worker of trial {killed} died" in log and log.count("exit code -9") == 1
    runs = journals(project)
    begun = {number: len(of_kind(lines, "start", "resume")) for number, lines in runs.items()}
    assert begun == {number: 1 + (number == killed) for number in range(12)}
    assert all([line["status"] for line in of_kind(lines, "finish")] == ["FINISHED"] for lines in runs.values())
    assert len({line["pid"] for lines in runs.values() for line in of_kind(lines, "start")}) > 1


def test_four_workers_on_postgresql_lose_nothing_and_repeat_nothing(
    project: Project,
    postgres: tuple[str, Any],  # noqa: F811
) -> None:
    project.env["SEARCH_DATABASE_URL"] = postgres[0]
    check(project, search_and_kill_one(project, "$SEARCH_DATABASE_URL", 4))


def test_three_workers_on_sqlite_lose_nothing_and_repeat_nothing(project: Project) -> None:
    check(project, search_and_kill_one(project, "sqlite:///store/search.db", 3))


@pytest.mark.parametrize("ended", ["Ctrl-C", "kill -9"])
def test_workers_end_with_the_process_that_started_them(project: Project, ended: str) -> None:
    asked = [*command(project, "sqlite:///store/search.db", 2), "search.max_trials=4"]
    deadline = time.monotonic() + 300
    with project.started(*asked) as process:
        while len(in_training(journals(project))) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT if ended == "Ctrl-C" else signal.SIGKILL)
        assert process.wait(120) == (130 if ended == "Ctrl-C" else -9)
        while not all(of_kind(lines, "finish") for lines in journals(project).values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    statuses = {of_kind(lines, "finish")[-1]["status"] for lines in journals(project).values()}
    assert "KILLED" in statuses <= {"KILLED", "FINISHED"}
    project.run(*asked)
    report = json.loads((project.path / "reports" / "sweep.json").read_text(encoding="utf-8"))
    assert [t["state"] for t in report["trials"]] == ["COMPLETE"] * 4
    log = (project.path / "logs" / "sweep.jsonl").read_text(encoding="utf-8")
    assert Counter(map(int, re.findall(r"trial (\d+) \(", log))) == Counter(range(4)) and "died" not in log

"""A search by several workers on one storage, real PostgreSQL or SQLite, of which one is killed in the middle."""

import json
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Baker, Project, environment_python
from tasks import TASKS
from test_sources import COMPOSE, extras, postgres  # noqa: F401  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.deep]
TRIALS = 8 * int(os.environ.get("DEPTH", "1"))
GRACE = 30.0  # seconds after which a silent worker is surely taken for dead
SEARCH = """
space:
  optimizer.lr: {{low: 3.0e-4, high: 3.0e-2, log: true}}
  model.width: {{choices: [4, 8]}}
pruner: none
warmup_epochs: 0
max_trials: {trials}
max_minutes: 20
stop_at_goal: false
storage: {storage}
"""
LONG_ENOUGH = [
    "trainer.max_epochs=15",
    "training.callbacks.early_stopping.patience=100",
    "trainer.enable_progress_bar=false",
]
RUNS = """
select number.value, runs.status, process.value,
  (select count(*) from metrics where metrics.run_uuid = runs.run_uuid and metrics.key = 'val/loss')
from runs
join tags number on number.run_uuid = runs.run_uuid and number.key = 'sweep.trial'
join tags process on process.run_uuid = runs.run_uuid and process.key = 'process'
"""


@pytest.fixture
def project(fresh: Baker, extras: Path) -> Project:  # noqa: F811
    project = fresh(task=TASKS[-1].name)
    project.env["PYTHONPATH"] = f"{extras}{os.pathsep}{project.env['PYTHONPATH']}"
    project.python("-c", COMPOSE)
    for verb in ("ingest", "validate", "split"):
        project.python("-m", "my_model", verb)
    return project


@dataclass(frozen=True)
class Run:
    """A trial's, as the store has it."""

    number: int
    status: str
    process: int
    epochs: int

    @property
    def trains(self) -> bool:
        return self.status == "RUNNING" and self.epochs > 0


def recorded(project: Project) -> list[Run]:
    """The runs of all trials so far."""
    with suppress(sqlite3.OperationalError):  # no store yet, or no tables in it
        file = f"file:{project.path / 'mlflow.db'}?mode=ro"
        with closing(sqlite3.connect(file, uri=True, timeout=30)) as store:
            rows = store.execute(RUNS).fetchall()
        return [Run(int(number), status, int(process.split()[0]), n) for number, status, process, n in rows]
    return []


def command(project: Project, storage: str, workers: int, trials: int = TRIALS) -> list[object]:
    text = SEARCH.format(storage=storage, trials=trials)
    (project.path / "configs" / "search" / "tiny.yaml").write_text(text, encoding="utf-8")
    verb = [environment_python(), "-m", "my_model", "sweep", "search=tiny", *LONG_ENOUGH]
    return [*verb, "--workers", workers, "--name", "tiny"]


def search_and_kill_one(project: Project, storage: str, workers: int) -> tuple[int, float]:
    """Searches and kills the worker of a trial that trains; the number of that trial, and when that was."""
    deadline, killed, when = time.monotonic() + 600, None, 0.0
    with project.started(*command(project, storage, workers)) as process:
        while process.poll() is None:
            assert time.monotonic() < deadline
            runs = recorded(project)
            victim = min((run for run in runs if run.trains), key=lambda run: run.number, default=None)
            if killed is None and victim and len(runs) > workers:
                os.kill(victim.process, signal.SIGKILL)
                killed, when = victim.number, time.monotonic()
            time.sleep(0.05)
    said = (project.path / "process.log").read_text(encoding="utf-8")
    assert process.returncode == 0, said
    assert said.count("a worker ended with exit code -9") == 1
    assert killed is not None
    return killed, when


def report(project: Project) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All trials and those with a result. No number is there twice, in the report, the log and the store."""
    trials = json.loads((project.path / "reports" / "sweep.json").read_text(encoding="utf-8"))["trials"]
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    assert len({trial["params"]["optimizer.lr"] for trial in complete}) == len(complete)
    log = (project.path / "logs" / "sweep.jsonl").read_text(encoding="utf-8")
    assert Counter(map(int, re.findall(r"trial (\d+), COMPLETE", log))) == Counter(t["number"] for t in complete)
    assert max(Counter(run.number for run in recorded(project)).values()) == 1
    return trials, complete


def check(project: Project, storage: str, workers: int) -> None:
    """The killed trial alone gives no result; its parameters are tried once more, under another number."""
    killed, when = search_and_kill_one(project, storage, workers)
    _, complete = report(project)
    assert TRIALS <= len(complete) < TRIALS + workers and killed not in {t["number"] for t in complete}
    assert len({run.process for run in recorded(project)}) > 1

    # A call after the worker's silence was long enough tries again what no other worker has.
    time.sleep(max(0.0, when + GRACE - time.monotonic()))
    project.run(*command(project, storage, 1, trials=len(complete) + 2))
    trials, more = report(project)
    assert len(more) == len(complete) + 2
    assert {t["number"]: t["state"] for t in trials if t not in more} == {killed: "FAIL"}
    assert [t["params"] for t in more].count(trials[killed]["params"]) == 1
    statuses = {run.number: run.status for run in recorded(project)}
    assert statuses == {t["number"]: "KILLED" if t["number"] == killed else "FINISHED" for t in trials}


def test_four_workers_on_postgresql_lose_nothing_and_repeat_nothing(
    project: Project,
    postgres: tuple[str, Any],  # noqa: F811
) -> None:
    project.env["SEARCH_DATABASE_URL"] = postgres[0]
    check(project, "$SEARCH_DATABASE_URL", 4)


def test_three_workers_on_sqlite_lose_nothing_and_repeat_nothing(project: Project) -> None:
    check(project, "sqlite:///store/search.db", 3)


@pytest.mark.parametrize("ended", ["Ctrl-C", "kill -9"])
def test_the_same_command_goes_on_after_its_process_was_ended(project: Project, ended: str) -> None:
    """Ctrl-C ends the workers, whose trials are tried again; after kill -9 they go on until the budget is spent."""
    asked, budget = command(project, "sqlite:///store/search.db", 2, trials=4), range(4, 6)
    deadline = time.monotonic() + 300
    with project.started(*asked) as process:
        while sum(run.trains for run in recorded(project)) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT if ended == "Ctrl-C" else signal.SIGKILL)
        assert process.wait(120) == (130 if ended == "Ctrl-C" else -9)
    while (ended == "kill -9" and len(recorded(project)) < 4) or any(r.status == "RUNNING" for r in recorded(project)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    statuses = Counter(run.status for run in recorded(project))
    assert statuses["KILLED"] if ended == "Ctrl-C" else set(statuses) == {"FINISHED"}
    project.run(*asked)
    trials, complete = report(project)
    interrupted = [trial for trial in trials if trial not in complete]
    assert len(complete) in budget and {trial["state"] for trial in interrupted} <= {"FAIL"}
    assert len(interrupted) == statuses["KILLED"]
    assert all(trial["params"] in [t["params"] for t in complete] for trial in interrupted)

"""Retraining in a real git repository with real DVC: what it makes, and what it leaves behind.

The pipeline is a stand-in that counts files of feedback, and the gate answers as the test says.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from kinds import every_kind

from {{cookiecutter.package_name}}.data.ingest import read
from {{cookiecutter.package_name}}.monitoring import retrain, routine
from {{cookiecutter.package_name}}.settings import Settings, parse
from {{cookiecutter.package_name}}.task import schema

pytestmark = pytest.mark.row("D4", "O7")
Feed = Callable[..., None]


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    raw = settings.model_dump(mode="json")
    raw["project"]["package"], raw["tracking"]["uri"] = "stand_in", "sqlite:///tracker.db"
    raw["paths"] |= {
        "audit": "audit/log.txt",
        "state": ".state",
        "live": "live",
        "store": "store/predictions.db",
    }
    return parse(raw)


@pytest.fixture(autouse=True)
def alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"verdict": "alarm", "alarm": True, "reasons": ["it changed"], "warnings": []}
    monkeypatch.setattr(routine, "monitor", lambda settings: found)


def run(settings: Settings, force: bool = False) -> int:
    return routine.run(
        settings, argparse.Namespace(force=force, scheduled="2030-01-01T04:15:00+00:00")
    )


def last_line() -> dict[str, Any]:
    return dict(json.loads(Path("logs/routine.jsonl").read_text(encoding="utf-8").splitlines()[-1]))


def untouched(branches: int = 0) -> bool:
    """No worktree, no change in the checkout, and only the branches that a run may leave."""
    assert len(git("worktree", "list").splitlines()) == 1
    assert not Path(".state/routine").exists()
    assert git("status", "--porcelain") == ""
    assert len(git("branch", "--list", "routine/*").splitlines()) == branches
    return True


@pytest.mark.slow
def test_an_alarm_with_labels_makes_a_data_version_and_a_branch(
    settings: Settings,
    repository: Path,
    feed: Feed,
    table: pd.DataFrame,
    alarm: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    feed(5, 40)  # five of them are in the snapshot already
    feed(38, 42, prefix="again")
    assert run(settings) == 0
    assert untouched(branches=1)
    branch = last_line()["branch"]
    assert f"git merge {branch}" in capsys.readouterr().out
    assert (repository / "live/pulled").exists()
    assert (repository / "audit/log.txt").read_text().split(" ", 1) == [
        "1",
        f"{repository}/tracker.db\n",
    ]

    git("merge", "--quiet", branch)
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet"], check=True)
    [file] = (repository / "data/feedback").glob("*.parquet")
    rows = pd.read_parquet(file)
    assert rows["id"].tolist() == [f"p{i}" for i in range(10, 40)] + ["again40", "again41"]
    assert rows.columns.tolist() == table.columns.tolist()
    assert rows["label"].tolist() == table["label"][10:42].tolist()

    # The next time only new rows count, and the old ones stay.
    assert run(settings) == 4
    assert "0 new labelled" in last_line()["outcome"]
    feed(42, 70)
    (repository / "audit/log.txt").unlink()
    assert run(settings) == 0
    assert (repository / "audit/log.txt").read_text().startswith("2 ")
    assert untouched(branches=2)


@pytest.mark.slow
def test_a_refusal_is_kept_for_review_and_not_repeated(
    settings: Settings, repository: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", "3")
    feed(10, 40)
    assert run(settings) == 3
    assert untouched(branches=1)
    assert not (repository / "live/pulled").exists()
    assert run(settings) == 3
    assert "refused before" in last_line()["outcome"]
    assert untouched(branches=1)


@pytest.mark.slow
def test_a_failing_pipeline_leaves_nothing_but_its_output(
    settings: Settings, repository: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    git(
        "worktree", "add", "--detach", "--quiet", ".state/routine/killed", "HEAD"
    )  # left by a routine that was killed
    feed(10, 40)
    assert run(settings) == 1
    assert untouched()
    line = last_line()
    assert line["severity"] == "ERROR" and "`dvc repro` failed" in line["error"]
    [output] = Path("logs").glob("routine-*.txt")
    assert "no disk left" in output.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes on Windows")
def test_a_terminated_routine_ends_its_children_and_cleans_up(
    settings: Settings,
    repository: Path,
    feed: Feed,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SLOW", str(tmp_path / "child"))
    feed(10, 40)

    def terminate() -> None:
        until((tmp_path / "child").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(SystemExit):
        run(settings)
    thread.join()
    with FileLock(tmp_path / "child.lock", timeout=60):  # the child held it until it ended
        assert untouched()
    assert last_line()["error"] == "interrupted"


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Fails if the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def test_too_few_labels_change_nothing_even_if_forced(
    settings: Settings, repository: Path, feed: Feed
) -> None:
    feed(10, 29)
    assert run(settings, force=True) == 4
    assert untouched()
    assert "19 new labelled predictions, a retraining needs 20" in last_line()["outcome"]


@pytest.mark.slow
def test_disputed_and_unknown_labels_are_left_out(
    settings: Settings, repository: Path, feed: Feed, table: pd.DataFrame
) -> None:
    feed_bad_labels(feed, table)
    assert run(settings) == 4
    assert "19 new labelled" in last_line()["outcome"]


def feed_bad_labels(feed: Feed, table: pd.DataFrame) -> None:
    """Nineteen good ones, two rows about which people disagree, and labels that the task cannot
    have.
    """
    one, other = table["label"].unique()[:2]
    feed(10, 29)
    feed(29, 31, label=one)
    feed(29, 31, prefix="other", label=other)
    feed(40, 50, label="no such label")
    feed(50, 60, label=math.inf)


@every_kind
def test_new_rows_are_those_that_may_be_learned_from(
    settings: Settings, feed: Feed, table: pd.DataFrame
) -> None:
    feed_bad_labels(feed, table)
    feed(60, 70, instance={"no such": 1})
    rows = retrain.new_rows(settings, settings.paths.feedback)
    assert rows["id"].tolist() == [f"p{i}" for i in range(10, 29)]
    assert (
        rows["label"].tolist() == table["label"][10:29].tolist()
        and rows["label"].dtype == table["label"].dtype
    )
    assert rows.columns.tolist() == table.columns.tolist()


@every_kind
def test_near_duplicates_of_known_rows_and_of_one_another_stay_out(
    settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would lie in another split than the row that they resemble."""
    feed(10, 29)
    whole = retrain.new_rows(settings, settings.paths.feedback)
    known = read(settings)["id"]

    def alike(rows: pd.DataFrame, data: object) -> pd.Series:
        """Two pairs of new rows are alike, and a fifth one is like all known rows."""
        keys = rows["id"].where(~rows["id"].isin(known), "known")
        same = {
            whole["id"][1]: whole["id"][0],
            whole["id"][3]: whole["id"][2],
            whole["id"][4]: "known",
        }
        return keys.replace(same)

    monkeypatch.setattr(schema, "near_key", alike)
    left = retrain.new_rows(settings, settings.paths.feedback)
    assert set(left["id"]) == set(whole["id"]) - {whole["id"][i] for i in (1, 3, 4)}


def test_what_git_lacks_is_one_line(settings: Settings, feed: Feed) -> None:
    feed(10, 40)
    assert run(settings) == 1
    assert "no commit yet" in last_line()["error"]
    git("init", "--quiet")
    assert run(settings) == 1
    assert "no commit yet" in last_line()["error"]

"""Retraining that is refused, fails, is killed or has too little to learn from."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import watched
from filelock import FileLock
from kinds import every_kind
from watched import Feed, feed_bad_labels, git, last_line, run, untouched

from {{cookiecutter.package_name}} import tracking
from {{cookiecutter.package_name}}.data.ingest import read
from {{cookiecutter.package_name}}.monitoring import retrain
from {{cookiecutter.package_name}}.settings import Settings
from {{cookiecutter.package_name}}.task import schema
from {{cookiecutter.package_name}}.worktree import checkout

alarm, environment, feed, kind = watched.alarm, watched.environment, watched.feed, watched.kind
project, raw_settings, repository = watched.project, watched.raw_settings, watched.repository
settings, stand_in, table = watched.settings, watched.stand_in, watched.table
pytestmark = [pytest.mark.row("D4", "O7"), pytest.mark.usefixtures("alarm")]


@pytest.mark.slow
def test_a_refusal_is_kept_for_review_and_not_repeated(
    stand_in: Settings, repository: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", "3")
    feed(10, 40)
    assert run(stand_in) == 3
    assert untouched(branches=1)
    assert not (repository / "live/pulled").exists()
    assert run(stand_in) == 3
    assert "refused before" in last_line()["outcome"]
    assert untouched(branches=1)


@pytest.mark.slow
def test_a_failing_pipeline_leaves_nothing_but_its_output(
    stand_in: Settings, repository: Path, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    git(
        "worktree", "add", "--detach", "--quiet", ".state/routine/killed", "HEAD"
    )  # left by a routine that was killed
    feed(10, 40)
    assert run(stand_in) == 1
    assert untouched()
    line = last_line()
    assert line["severity"] == "ERROR" and "`dvc repro` failed" in line["error"]
    [output] = Path("logs").glob("routine-*.txt")
    assert "no disk left" in output.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes on Windows")
def test_a_terminated_routine_ends_its_children_and_cleans_up(
    stand_in: Settings,
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
        run(stand_in)
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
    stand_in: Settings, repository: Path, feed: Feed
) -> None:
    feed(10, 29)
    assert run(stand_in, force=True) == 4
    assert untouched()
    assert "19 new labelled predictions, a retraining needs 20" in last_line()["outcome"]


@pytest.mark.slow
def test_disputed_and_unknown_labels_are_left_out(
    stand_in: Settings, repository: Path, feed: Feed, table: pd.DataFrame
) -> None:
    feed_bad_labels(feed, table)
    assert run(stand_in) == 4
    assert "19 new labelled" in last_line()["outcome"]


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


@pytest.mark.slow
def test_records_that_wait_for_a_server_outlive_the_worktree(
    stand_in: Settings, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, records = "http://127.0.0.1:9", Path(".state/mlflow.db")
    changes = {
        "tracking": stand_in.tracking.model_copy(update={"uri": uri}),
        "paths": stand_in.paths.model_copy(update={"records": records}),
    }
    settings = stand_in.model_copy(update=changes)
    with checkout(settings, "routine") as tree, monkeypatch.context() as patch:
        tree.prepare()
        patch.chdir(tree.project)
        run = tracking.start(settings, "a stage")
        run.text("of a stage", "file.txt")
        run.finish()
    again = tracking.attach(settings, run.key)
    assert again is not None and not tree.project.exists()
    assert [f.path for f in again.store.list_artifacts(again.local_id)] == ["file.txt"]


def test_what_git_lacks_is_one_line(stand_in: Settings, feed: Feed) -> None:
    feed(10, 40)
    assert run(stand_in) == 1
    assert "no commit yet" in last_line()["error"]
    git("init", "--quiet")
    assert run(stand_in) == 1
    assert "no commit yet" in last_line()["error"]

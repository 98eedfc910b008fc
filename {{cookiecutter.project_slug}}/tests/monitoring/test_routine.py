"""The routine in a real git repository with real DVC: what it decides, what it makes, and what it leaves behind.

The pipeline is a stand-in that counts rows, and the gate answers as the test says.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock
from hydra.utils import instantiate

from {{ cookiecutter.package_name }}.data.features import row_to_instance
from {{ cookiecutter.package_name }}.data.ingest import content_hash
from {{ cookiecutter.package_name }}.monitoring import routine
from {{ cookiecutter.package_name }}.provenance import sha256, write_json
from {{ cookiecutter.package_name }}.serving.store import Record, Store
from {{ cookiecutter.package_name }}.settings import Settings, parse

pytestmark = pytest.mark.row("D4", "O7")
Feed = Callable[..., None]
STAND_IN = """
import os, sys, time
from pathlib import Path
from filelock import FileLock
verb, settings = sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:])
if verb == "ingest":
    if os.environ.get("BROKEN"):
        sys.exit("no disk left")
    if "SLOW" in os.environ:
        with FileLock(os.environ["SLOW"] + ".lock"):
            Path(os.environ["SLOW"]).touch()
            time.sleep(120)
    Path("count.txt").write_text(str(len(list(Path("data/feedback").glob("*.parquet")))))
if verb == "promote":
    with open(settings["paths.audit"], "a") as file:
        file.write(Path("count.txt").read_text() + " " + settings["tracking.uri"] + "\\n")
    sys.exit(int(os.environ.get("GATE", "0")))
if verb == "pull":
    Path(settings["paths.live"], "pulled").touch()
"""
PIPELINE = f"""
stages:
  ingest:
    cmd: '"{sys.executable}" -m stand_in ingest'
    deps: [data/feedback]
    outs: [count.txt]
"""
IGNORED = "live\nlogs\nstore\n.state\nreports\naudit\ndata/raw\n"


def report(verdict: str = "alarm", warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"verdict": verdict, "alarm": verdict == "alarm", "reasons": ["it changed"], "warnings": list(warnings)}


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    raw = settings.model_dump(mode="json")
    raw["project"]["package"], raw["tracking"]["uri"] = "stand_in", "sqlite:///tracker.db"
    raw["paths"] |= {"audit": "audit/log.txt", "state": ".state", "live": "live", "store": "store/predictions.db"}
    return parse(raw)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No git identity but the one for the first commit, and no repository around the test's folder."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv("GATE", raising=False)


@pytest.fixture
def repository(project: Path, settings: Settings) -> Path:
    """The project as a git and DVC repository with a stand-in for its package."""
    for folder in ("src/stand_in", "data/feedback", "live", "audit"):
        (project / folder).mkdir(parents=True)
    (project / "src/stand_in/__main__.py").write_text(STAND_IN, encoding="utf-8")
    (project / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (project / ".gitignore").write_text(IGNORED, encoding="utf-8")
    (project / "data/feedback/.gitkeep").touch()
    git("init", "--quiet", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return project


@pytest.fixture
def table(settings: Settings) -> pd.DataFrame:
    """Distinct raw rows of the task; the first ten are the snapshot in data/raw."""
    rows: pd.DataFrame = instantiate(settings.data.source)[:200]
    rows = rows[~content_hash(rows).duplicated()].reset_index(drop=True)
    assert len(rows) > 60
    rows[:10].to_parquet(settings.paths.raw / "data.parquet")
    entry = {"sha256": sha256(settings.paths.raw / "data.parquet")}
    write_json(settings.paths.raw / "manifest.json", {"files": {"data.parquet": entry}})
    return rows


@pytest.fixture
def feed(settings: Settings, table: pd.DataFrame) -> Feed:
    """Stores rows of the table as answered requests with feedback."""

    def feed(start: int, stop: int, prefix: str = "p", label: str | None = None) -> None:
        store, records = Store(settings.paths.store), []
        rows = list(islice(table.to_dict("records"), start, stop))
        for i, row in enumerate(rows, start):
            base: dict[str, Any] = {"prediction_id": f"{prefix}{i}", "time": 1.0, "version": "1", "identity": "x"}
            base |= {"instance": row_to_instance(row), "label": row["label"], "confidence": 1.0, "abstain": False}
            records.append(Record(**{**base, "latency_ms": 1.0, "signals": {}}))  # type: ignore[typeddict-item]
        store.append(records)
        for record, row in zip(records, rows, strict=True):
            assert store.feedback(record["prediction_id"], label or row["label"])
        assert store.flush()
        store.close()

    return feed


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the monitor says."""

    def alarm(*words: Any, **options: Any) -> None:
        monkeypatch.setattr(routine, "monitor", lambda settings: report(*words, **options))

    alarm()
    return alarm


def run(settings: Settings, force: bool = False) -> int:
    return routine.run(settings, argparse.Namespace(force=force, scheduled="2030-01-01T04:15:00+00:00"))


def last_line() -> dict[str, Any]:
    return dict(json.loads(Path("logs/routine.jsonl").read_text(encoding="utf-8").splitlines()[-1]))


def untouched(branches: int = 0) -> bool:
    """No worktree, no change in the checkout, and only the branches that a run may leave."""
    assert len(git("worktree", "list").splitlines()) == 1
    assert not Path(".state/routine").exists()
    assert git("status", "--porcelain") == ""
    assert len(git("branch", "--list", "routine/*").splitlines()) == branches
    return True


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (report("no alarm"), 0, "nothing to do"),
        (report("cannot tell"), 4, "cannot tell: it changed"),
        (report(warnings=("a flood",)), 4, "signs of abuse"),
    ],
)
def test_without_an_honest_alarm_nothing_is_trained(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], code: int, words: str
) -> None:
    monkeypatch.setattr(routine, "monitor", lambda settings: found)
    monkeypatch.setattr(routine, "retrain", lambda *words, **options: pytest.fail("retrained"))
    assert run(settings) == code
    assert words in last_line()["outcome"]


def test_every_run_is_one_line_with_its_number(settings: Settings, alarm: Callable[..., None]) -> None:
    alarm("no alarm")
    run(settings)
    run(settings)
    line = last_line()
    assert line["scheduled"] == "2030-01-01T04:15:00+00:00"
    assert line["start"] <= line["end"] and line["run"] == 2 and line["error"] is None
    assert len(Path("logs/routine.jsonl").read_text(encoding="utf-8").splitlines()) == 2


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
    assert (repository / "audit/log.txt").read_text().split(" ", 1) == ["1", f"sqlite:///{repository}/tracker.db\n"]

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
    settings: Settings, repository: Path, feed: Feed, alarm: Any, monkeypatch: pytest.MonkeyPatch
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
    settings: Settings, repository: Path, feed: Feed, alarm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    git("worktree", "add", "--detach", "--quiet", ".state/routine/killed", "HEAD")  # left by a routine that was killed
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
    settings: Settings, repository: Path, feed: Feed, alarm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    settings: Settings, repository: Path, feed: Feed, alarm: Any
) -> None:
    feed(10, 29)
    assert run(settings, force=True) == 4
    assert untouched()
    assert "19 new labelled predictions, a retraining needs 20" in last_line()["outcome"]


@pytest.mark.slow
def test_disputed_and_unknown_labels_are_left_out(settings: Settings, repository: Path, feed: Feed, alarm: Any) -> None:
    labels = settings.data.labels
    feed(10, 29)
    feed(29, 31, label=labels[0])
    feed(29, 31, prefix="other", label=labels[1])
    feed(40, 60, label="no such label")
    assert run(settings) == 4
    assert "19 new labelled" in last_line()["outcome"]


def test_what_git_lacks_is_one_line(settings: Settings, feed: Feed, alarm: Any) -> None:
    feed(10, 40)
    assert run(settings) == 1
    assert last_line()["error"].endswith("no git repository: run `make setup` first")
    git("init", "--quiet")
    assert run(settings) == 1
    assert "no commit yet" in last_line()["error"]


def test_no_store_is_one_line(settings: Settings, identity: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(settings) == 1
    assert last_line()["error"].startswith("no predictions in store/predictions.db: start `make serve`")
    assert "Traceback" not in capsys.readouterr().err


def test_two_routines_never_run_at_once(settings: Settings, alarm: Any) -> None:
    settings.paths.state.mkdir()
    with FileLock(settings.paths.state / "routine.lock"):
        assert run(settings) == 1
    assert "another routine is running" in last_line()["error"]
    alarm("no alarm")
    assert run(settings) == 0
    assert last_line()["run"] == 1

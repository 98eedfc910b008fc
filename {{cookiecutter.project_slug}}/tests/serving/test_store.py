"""The prediction store: nothing waits, nothing is lost without being counted, the file stays
bounded.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from served import record

from {{cookiecutter.package_name}}.serving import store as module
from {{cookiecutter.package_name}}.serving.store import Store, StoreBusy, recent

SECONDS_OF_A_SLOW_DISK = 0.5


@pytest.mark.row("S5")
def test_what_was_stored_comes_back_newest_last(store: Store) -> None:
    assert recent(store.path, 10) == []
    assert store.append([record(i) for i in range(5)]) == 0
    store.feedback("id-3", "a")
    assert store.answered_by("id-3") and store.answered_by("id-9") is None
    assert store.flush()
    rows = recent(store.path, 3)
    assert [row["prediction_id"] for row in rows] == ["id-2", "id-3", "id-4"]
    assert [row["feedback"] for row in rows] == [None, "a", None]
    assert {**rows[2], "feedback": None} == {**record(4), "feedback": None}


@pytest.mark.row("S5")
def test_recent_selects_by_bundle_and_feedback(store: Store) -> None:
    store.append([record(1), record(2, identity="new"), record(3, identity="new")])
    store.feedback("id-2", "a")
    store.feedback("id-2", "b")  # a second opinion replaces the first
    store.flush()
    assert [row["prediction_id"] for row in recent(store.path, 10, "new")] == ["id-2", "id-3"]
    assert [
        (row["prediction_id"], row["feedback"]) for row in recent(store.path, 10, labelled=True)
    ] == [("id-2", "b")]


@pytest.mark.row("S5")
def test_only_the_newest_rows_stay(tmp_path: Path) -> None:
    store = Store(tmp_path / "predictions.db", max_rows=50)
    for i in range(0, 200, 20):
        store.append([record(j) for j in range(i, i + 20)])
        store.feedback(f"id-{i}", "a")
        store.flush()
    store.append([record(j) for j in range(200, 220)])
    store.close()  # which stores what is queued
    assert store.append([record(1000)]) == 1  # too late, and counted
    rows = recent(store.path, 1000)
    assert [row["prediction_id"] for row in rows] == [f"id-{i}" for i in range(170, 220)]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (1,)
    connection.close()


@pytest.mark.row("S5")
def test_a_slow_disk_makes_nobody_wait(
    store: Store, blocked: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_ROWS", 100)
    started = time.perf_counter()
    dropped = sum(store.append([record(i)]) for i in range(150))
    assert time.perf_counter() - started < SECONDS_OF_A_SLOW_DISK
    assert dropped == store.dropped == 50 and store.depth == 100
    with pytest.raises(StoreBusy):
        store.feedback("id-1", "a")
    blocked()
    assert store.flush() and store.depth == 0
    assert len(recent(store.path, 1000)) == 101

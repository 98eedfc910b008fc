"""The prediction store under damage, a failing disk and kill -9."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import served
from served import record

from {{cookiecutter.package_name}}.serving import store as module
from {{cookiecutter.package_name}}.serving.store import Store, StoreBusy, recent

blocked, store = served.blocked, served.store


@pytest.mark.row("S5", "S6")
def test_labels_keep_their_type(store: Store) -> None:
    store.append([record(1, label="7"), record(2, label=7.0), record(3, label=-0.25)])
    for i, given in ((1, "7"), (2, 8.0), (3, 1e300)):
        store.feedback(f"id-{i}", given)
    store.flush()
    found = [(row["label"], row["feedback"]) for row in recent(store.path, 3)]
    assert found == [("7", "7"), (7.0, 8.0), (-0.25, 1e300)]
    assert [type(label) for pair in found for label in pair] == [
        str,
        str,
        float,
        float,
        float,
        float,
    ]


@pytest.mark.row("S5")
def test_a_file_without_tables_is_an_empty_store(store: Store) -> None:
    store.path.parent.mkdir()
    store.path.touch()  # so it looks for a moment while another process makes it
    assert recent(store.path, 10) == [] and store.answered_by("id-1") is None


@pytest.mark.row("S5")
def test_a_damaged_file_is_busy_not_a_crash(store: Store) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(b"no database " * 1000)
    with pytest.raises(StoreBusy):
        store.answered_by("id-1")


@pytest.mark.row("S5")
def test_the_queue_is_bounded_in_bytes(
    store: Store, blocked: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 10_000)
    assert sum(store.append([record(i, instance={"x": "a" * 1000})]) for i in range(20)) > 10
    blocked()


@pytest.mark.row("S5")
def test_feedback_on_what_is_still_queued(store: Store, blocked: Callable[[], None]) -> None:
    store.append([record(7)])
    assert store.answered_by("id-7")
    store.feedback("id-7", "a")
    assert [row["prediction_id"] for row in recent(store.path, 10)] == [
        "id--1"
    ]  # it is really not there yet
    blocked()
    store.flush()
    assert recent(store.path, 1)[0]["feedback"] == "a"


@pytest.mark.row("S5")
def test_a_failing_disk_is_logged_once_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    store = Store(tmp_path / "file" / "predictions.db")
    for i in range(3):
        store.append([record(i)])
        assert store.flush()
    store.close()
    assert store.dropped == 3
    assert len([r for r in caplog.records if "not stored" in r.message]) == 1


FORGETFUL = """
import sys, json
from pathlib import Path
from {{cookiecutter.package_name}}.serving.store import Store
Store(Path(sys.argv[1])).append([json.loads(sys.argv[2])])
raise SystemExit(3)
"""


@pytest.mark.row("S5")
def test_a_process_that_forgets_to_close_ends_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    command = [sys.executable, "-c", FORGETFUL, str(path), json.dumps(record(0))]
    assert subprocess.run(command, timeout=60, check=False).returncode == 3
    assert len(recent(path, 10)) == 1


WRITER = """
import sys, json
from pathlib import Path
from {{cookiecutter.package_name}}.serving.store import Store
store = Store(Path(sys.argv[1]))
record = json.loads(sys.argv[2])
for i in range(10_000):
    store.append([record | dict(prediction_id=f"n-{i}")])
    store.flush()
    print(i, flush=True)
"""


@pytest.mark.row("S5")
def test_another_process_reads_meanwhile_and_a_kill_loses_nothing_committed(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    command = [sys.executable, "-c", WRITER, str(path), json.dumps(record(0))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        timer = threading.Timer(60, writer.kill)
        timer.start()
        for line in writer.stdout:
            if int(line) in (5, 20):
                assert len(recent(path, 1000)) > int(line)
            if int(line) == 30:
                writer.kill()
                break
        writer.wait()
        timer.cancel()
    assert len(recent(path, 1000)) >= 31

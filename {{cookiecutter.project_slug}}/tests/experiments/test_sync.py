import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import PACKAGE, Project, module

tracking, journal, sync = (
    module(f"experiments.{name}") for name in ("tracking", "journal", "sync")
)


@pytest.fixture
def run(project: Project) -> Any:
    return tracking.start(project.settings(), "a run", tags={"colour": "red"})


def history(run: Any, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in run.client.get_metric_history(run.id, name)]


def test_recording_needs_no_tracker_and_imports_none(project: Project) -> None:
    code = f"""
import sys
from {PACKAGE}.experiments import tracking
from {PACKAGE}.params import load
with tracking.start(load(["tracking.uri=http://127.0.0.1:9"]), "a run") as run:
    run.metrics(dict(loss=1.0))
    run.text("words", "note.txt")
assert "mlflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "127.0.0.1" in str(sync.deliver_all(project.settings().paths.records))


def test_delivering_again_changes_nothing(run: Any) -> None:
    with run:
        run.params({"a": 1})
        for step in range(3):
            run.metrics({"loss": step / 2}, step=step)
        run.text("words", "folder/note.txt")
    first = run.id
    before = (run.client.get_run(first).to_dictionary(), history(run, "loss"))
    (
        run.journal.folder / "delivered.json"
    ).unlink()  # as if the machine had gone down before it was noted
    assert run.id == first
    assert (run.client.get_run(first).to_dictionary(), history(run, "loss")) == before
    assert before[0]["info"]["status"] == "FINISHED" and before[1] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    assert [f.path for f in run.client.list_artifacts(first, "folder")] == ["folder/note.txt"]


def test_what_goes_on_records_a_step_once_in_the_same_run(run: Any, project: Project) -> None:
    run.metrics({"loss": 1.0}, step=1)
    first = run.id
    again = tracking.start(project.settings(), "a run", key=run.key)
    with again:
        again.metrics({"loss": 9.0, "other": 2.0}, step=1)
        again.metrics({"loss": 0.5}, step=2)
    tracking.deliver(project.settings())
    assert again.id == first
    assert history(again, "loss") == [(1, 1.0), (2, 0.5)] and history(again, "other") == [(1, 2.0)]


def test_half_a_line_is_skipped(run: Any, project: Project) -> None:
    with run.journal.path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "metrics", "st')
    with tracking.start(project.settings(), "a run", key=run.key) as again:
        again.metrics({"loss": 1.0})
    assert history(again, "loss") == [(0, 1.0)] and not again.journal.waits()


def test_a_run_whose_process_is_gone_is_killed_and_may_go_on(project: Project) -> None:
    code = f"""
from {PACKAGE}.experiments import tracking
from {PACKAGE}.params import load
print(tracking.start(load(), "a run").key)
"""
    key = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    records = project.settings().paths.records
    sync.end_orphans(records, -1)
    assert sync.deliver_all(records, forget=True) is None
    run = tracking.Run(project.settings(), journal.Journal(records / key))
    assert run.client.get_run(run.id).info.status == "KILLED"
    with tracking.start(project.settings(), "a run", key=key) as again:
        tracking.deliver(project.settings())
        assert again.client.get_run(run.id).info.status == "RUNNING"
    assert sync.deliver_all(records) is None and sync.deliver_all(records, forget=True) is None
    assert (
        again.client.get_run(run.id).info.status == "FINISHED"
        and not Path(again.journal.folder).exists()
    )


def test_a_child_stays_while_its_parent_may_go_on(run: Any, project: Project) -> None:
    with tracking.start(project.settings(), "a child", run) as child:
        child.metrics({"loss": 1.0})
    run.finish("KILLED")
    tracking.deliver(project.settings())
    assert child.journal.exists()
    tags = child.client.get_run(child.id).data.tags
    assert tags["mlflow.parentRunId"] == run.id and tags["record"] == child.key
    assert (
        json.loads((run.journal.folder / "delivered.json").read_text("utf-8"))["run_id"] == run.id
    )

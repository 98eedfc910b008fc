"""Records on their way to a server, which here is a second store, cut off wherever it may be."""

import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import PACKAGE, Project, module

glance, tracking, mirror = module("glance"), module("tracking"), module("mirror")
AWAY = "tracking.uri=http://127.0.0.1:9"


class Unsteady:
    """A client whose connection breaks after some calls."""

    def __init__(self, client: Any, calls: int) -> None:
        self.client, self.left = client, calls

    def __getattr__(self, name: str) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("cut off")
        return getattr(self.client, name)


def content(client: Any, experiment: str) -> list[Any]:
    """All that a store has, but for ids and what mirroring notes."""
    runs = client.search_runs([tracking.experiment_id(client, experiment)])
    names = {run.info.run_id: run.data.tags["record"] for run in runs}
    found = []
    for run in runs:
        tags = {k: v for k, v in run.data.tags.items() if not k.startswith("mirror.")}
        tags |= {k: names[v] for k, v in tags.items() if k == "mlflow.parentRunId"}
        history = [
            sorted(
                (m.key, m.step, m.value, m.timestamp)
                for m in client.get_metric_history(run.info.run_id, name)
            )
            for name in sorted(run.data.metrics)
        ]
        files = [f.path for f in client.list_artifacts(run.info.run_id, "a/folder")]
        given = [(d.dataset.name, d.dataset.digest) for d in run.inputs.dataset_inputs]
        about = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time, given)
        found.append((tags["record"], about, run.data.params, tags, history, files))
    return sorted(found, key=lambda row: str(row[0]))


def record(settings: Any) -> Any:
    with tracking.start(settings, "parent", tags={"colour": "red"}) as parent:
        parent.params({"a": {"b": 1}})
        tags = {"data.rows.train": "9", "dvc.data/splits": "1.dir"}
        parent.store.log_inputs(parent.local_id, [glance.dataset(settings, tags)])
        for step in range(3):
            parent.metrics({"loss": step / 2}, step=step)
        parent.text("words", "a/folder/note.txt")
        with tracking.start(settings, "child", parent) as child:
            child.metrics({"loss": 1.0})
        parent.metrics({f"val.{settings.data.goal.metric}": 0.5})
    return parent


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs: making its tables takes seconds."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    tracking.connect(f"sqlite:///{path}", "none")
    return path


@pytest.fixture
def prepared(project: Project, tables: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project whose stores have their tables, and whose log lines pytest sees."""
    monkeypatch.setattr(module("logs"), "get", lambda stage: logging.getLogger(f"test.{stage}"))
    for name in ("mlflow.db", ".state/mlflow.db", "server/server.db"):
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(tables, name)
    return project


@pytest.fixture
def stores(prepared: Project, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    """Settings, the local store with two runs, and an empty other one."""
    settings = prepared.settings(AWAY)
    monkeypatch.setattr(mirror, "deliver", lambda *_: 0)
    record(settings)
    name = settings.tracking.experiment
    local = tracking.connect(tracking.local_uri(settings), name)
    return settings, local, tracking.connect("sqlite:///server/server.db", name)


def test_a_copy_cut_off_anywhere_loses_nothing_and_doubles_nothing(
    stores: tuple[Any, Any, Any],
) -> None:
    settings, local, server = stores
    name, calls = settings.tracking.experiment, 1
    while True:
        try:
            mirror.mirror(local, Unsteady(server, calls), name)
            break
        except ConnectionError:
            calls += 3
    assert calls > 5 and content(server, name) == content(local, name)
    assert mirror.mirror(local, server, name) == 0


def test_what_is_added_later_and_a_run_that_goes_on_arrive(stores: tuple[Any, Any, Any]) -> None:
    settings, local, server = stores
    name = settings.tracking.experiment
    mirror.mirror(local, server, name)
    [parent] = [
        r
        for r in content(local, name)
        if r[1][0] == f"parent: val {settings.data.goal.metric} 0.5000"
    ]
    with tracking.start(settings, "parent", key=parent[0]) as run:
        assert mirror.mirror(local, server, name) == 1  # while it runs
        run.metrics({"loss": 9.0}, step=3)
        run.tags({"colour": "blue"})
        run.text("more", "a/folder/more.txt")
        run.metrics({f"test.{settings.data.goal.metric}": 0.25})
    assert mirror.mirror(local, server, name) == 1
    assert content(server, name) == content(local, name) and "more.txt" in str(
        content(server, name)
    )


def test_without_its_server_a_run_is_recorded_and_a_line_says_where_it_waits(
    prepared: Project, caplog: pytest.LogCaptureFixture
) -> None:
    settings = prepared.settings(AWAY)
    begun = time.monotonic()
    with tracking.start(settings, "a run") as run:
        run.metrics({"loss": 1.0})
    assert time.monotonic() - begun < 30 and "`sync` delivers later" in caplog.text
    assert tracking.attach(settings, run.key) is not None and run.mirrored
    with pytest.raises(ValueError, match="does not answer"):
        mirror.run(settings, None)
    with pytest.raises(ValueError, match="does not answer"):
        print(run.id)


class Answer500(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(params=["gone", "broken", "silent"])
def bad_tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a port without a server, of one that answers 500, and of one that hangs."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with HTTPServer(("127.0.0.1", 0), Answer500) as server:
        if request.param == "broken":
            threading.Thread(target=server.serve_forever, daemon=True).start()
        if request.param == "gone":
            server.server_close()
        yield f"http://user:password@127.0.0.1:{server.server_port}"
        if request.param == "broken":
            server.shutdown()


@pytest.mark.slow
@pytest.mark.row("E11")
def test_every_verb_that_needs_the_tracker_says_in_one_line_that_it_is_away(
    bad_tracker: str, trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    away = f"tracking.uri={bad_tracker}"
    pipeline = module("pipeline")
    for verb in ("promote", "rollback", "pull", "gc", "sync"):
        assert module("__main__").main([verb, away]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert line.startswith("error: the tracker at http://127.0.0.1:") and len(line) < 400
        assert "does not answer" in line and "password" not in line, line
    Path("params.yaml").write_text(pipeline.compose([away]), encoding="utf-8")
    for words in (["compare", "a", "b"], ["reproduce", "champion"]):
        assert module("__main__").main(words) == 2
        assert "the tracker at http://127.0.0.1:" in capsys.readouterr().err


OPEN_A_RUN = """
import sys, time
from importlib import import_module
from pathlib import Path
import mlflow
package, name = sys.argv[1:]
tracking, params = (import_module(f"{package}.{module}") for module in ("tracking", "params"))
Path(f"{name}.ready").touch()
while not Path("go").exists():
    time.sleep(0.001)
with tracking.start(params.load([]), name) as run:
    run.metrics({"number": float(name)})
    print(run.id)
"""


@pytest.mark.slow
@pytest.mark.row("E11")
def test_four_processes_at_once_make_one_new_store(project: Project) -> None:
    names, pipe = [str(i) for i in range(4)], subprocess.PIPE
    command = [sys.executable, "-c", OPEN_A_RUN, PACKAGE]
    started = [
        subprocess.Popen([*command, name], stdout=pipe, stderr=pipe, text=True) for name in names
    ]
    deadline = time.monotonic() + 120
    while not all(Path(f"{name}.ready").exists() for name in names):
        assert time.monotonic() < deadline and all(process.poll() is None for process in started)
        time.sleep(0.01)
    assert not Path("mlflow.db").exists()
    Path("go").touch()
    printed = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 4, printed
    settings = project.settings()
    client = tracking.client(settings)
    runs = client.search_runs([tracking.experiment_id(client, settings.tracking.experiment)])
    assert sorted(r.info.run_id for r in runs) == sorted(out.split()[-1] for out, _ in printed)
    assert {(r.data.metrics["number"], r.info.status) for r in runs} == {
        (float(name), "FINISHED") for name in names
    }

"""The tracking server goes away while a model trains: nothing waits for it, nothing is lost, nothing comes twice."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, environment_python

pytestmark = pytest.mark.slow
DEADLINE = 180.0
HASTE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}  # not 10 s: these verbs ask a silent tracker for one thing after another


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
        return True
    return False


class Tracker:
    """MLflow's own server on a port that stays the same when it is started again."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project, self.folder = project, folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command = [environment_python(), "-m", "mlflow", "server", *store]
        command += ["--artifacts-destination", self.folder / "files", "--port", self.port, "--workers", 1]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.folder,
                env=self.project.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(lambda: answers(self.url), "the tracking server")

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()


@pytest.fixture
def tracker(split_project: Project, tmp_path: Path) -> Iterator[Tracker]:
    made = Tracker(split_project, tmp_path)
    made.start()
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.signal(signal.SIGKILL)


def lines(project: Project) -> list[dict[str, Any]]:
    """The journal of the training, which is the oldest run on disk."""
    found = sorted(project.path.glob(".state/records/*/lines.jsonl"), key=lambda p: p.stat().st_ctime)
    texts = [path.read_text(encoding="utf-8").splitlines() for path in found]
    runs = [[json.loads(line) for line in text] for text in texts]
    return next((run for run in runs if run and run[0].get("name") == "train"), [])


def epochs(project: Project) -> int:
    return len([line for line in lines(project) if "val/loss" in line.get("values", {})])


def delivered(project: Project) -> bool:
    """Whether the tracker has the run: the file with its id is there."""
    found = [json.loads(p.read_text("utf-8")) for p in project.path.glob(".state/records/*/delivered.json")]
    return any(f["run_id"] for f in found)


HISTORY = """
import json, sys
from my_model import tracking
from my_model.params import load
client = tracking.client(load(sys.argv[1:]))
run = tracking.find_record(client, load().tracking.experiment, json.load(open("reports/run.json"))["record"])
history = {k: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, k)] for k in run.data.metrics}
files = [f.path for f in client.list_artifacts(run.info.run_id)]
children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
print(json.dumps([run.info.status, history, files, [c.data.tags["candidate"] for c in children]]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "silent"])
def test_training_goes_on_without_the_tracker_and_all_of_it_arrives_later(
    number: int, split_project: Project, tracker: Tracker
) -> None:
    project, uri = split_project, f"tracking.uri={tracker.url}"
    with project.started(environment_python(), "-m", "my_model", "train", "--pipeline", uri) as training:
        wait_for(lambda: epochs(project) >= 2 and delivered(project), "two epochs in the tracker")
        tracker.signal(number)
        before = time.monotonic()
        assert training.wait(DEADLINE) == 0
        assert time.monotonic() - before < DEADLINE / 2
    log = (project.path / "process.log").read_text(encoding="utf-8")
    assert "does not answer" in log and "`sync` delivers" in log and "Traceback" not in log
    written = lines(project)
    for stage in ("evaluate", "package"):  # what needs no registry goes on as well
        project.python("-m", "my_model", stage, uri, extra=HASTE)
    refused = project.python("-m", "my_model", "promote", uri, check=False, extra=HASTE)
    assert refused.returncode == 2 and refused.stderr.count("error:") == 1 and "Traceback" not in refused.stderr
    assert project.python("-m", "my_model", "sync", uri, check=False, extra=HASTE).returncode == 1

    if number == signal.SIGSTOP:
        tracker.signal(signal.SIGCONT)
    else:
        tracker.start()
    wait_for(lambda: answers(tracker.url), "the tracking server")
    project.python("-m", "my_model", "sync", uri)
    again = project.python("-m", "my_model", "sync", uri)
    assert "nothing waits" in again.stderr

    status, history, files, children = json.loads(project.python("-c", HISTORY, uri).stdout)
    assert status == "FINISHED" and sorted(children) == ["classical", "constant", "heuristic"]
    assert {"model", "config", "evaluation", "environment"} <= set(files)
    # Names with a / are of steps and epochs; `evaluate` records the chosen candidate's others again.
    recorded = [(name, line["step"]) for line in written if line["kind"] == "metrics" for name in line["values"]]
    wanted = Counter((name, step) for name, step in recorded if "/" in name)
    found = Counter((name, step) for name, values in history.items() if "/" in name for step, _ in values)
    assert set(wanted.values()) == {1} == set(found.values())  # nothing twice
    assert set(wanted) <= set(found)  # nothing lost
    assert project.python("-m", "my_model", "promote", uri).returncode == 0

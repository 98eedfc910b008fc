"""The tracking server goes away while a model trains: nothing waits for it, nothing is lost, nothing comes twice."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project, environment_python

pytestmark = [pytest.mark.slow, pytest.mark.deep]
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


HISTORY = """
import json, sys
from my_model import tracking
from my_model.params import load
settings = load(sys.argv[1:])
key, name = json.load(open("reports/run.json"))["record"], settings.tracking.experiment
for uri in (tracking.local_uri(settings), settings.tracking.uri):
    client = tracking.connect(uri, name)
    run = tracking.find_record(client, name, key)
    names = [k for k in run.data.metrics if "/" in k]  # of steps and epochs
    history = {k: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, k)) for k in names}
    files = [f.path for f in client.list_artifacts(run.info.run_id)]
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    print(json.dumps([run.info.status, history, files, sorted(c.data.tags["candidate"] for c in children)]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["gone", "silent"])
def test_training_goes_on_without_the_tracker_and_all_of_it_arrives_later(
    number: int, split_project: Project, tracker: Tracker
) -> None:
    project, uri = split_project, f"tracking.uri={tracker.url}"
    with project.started(environment_python(), "-m", "my_model", "train", "--pipeline", uri) as training:
        log = project.path / "process.log"
        wait_for(lambda: "epoch 2/" in log.read_text(encoding="utf-8"), "two epochs")
        tracker.signal(number)
        before = time.monotonic()
        assert training.wait(DEADLINE) == 0
        assert time.monotonic() - before < DEADLINE / 2
    said = log.read_text(encoding="utf-8")
    assert "does not answer" in said and "`sync` delivers" in said and "Traceback" not in said
    for stage in ("evaluate", "package"):  # what needs no registry goes on as well
        project.python("-m", "my_model", stage, uri, extra=HASTE)
    refused = project.python("-m", "my_model", "promote", uri, check=False, extra=HASTE)
    assert refused.returncode == 2 and refused.stderr.count("error:") == 1 and "Traceback" not in refused.stderr
    assert project.python("-m", "my_model", "sync", uri, check=False, extra=HASTE).returncode == 2

    if number == signal.SIGSTOP:
        tracker.signal(signal.SIGCONT)
    else:
        tracker.start()
    wait_for(lambda: answers(tracker.url), "the tracking server")
    project.python("-m", "my_model", "sync", uri)
    again = project.python("-m", "my_model", "sync", uri)
    assert "delivered 0 run(s)" in again.stderr

    here, there = map(json.loads, project.python("-c", HISTORY, uri).stdout.splitlines()[-2:])
    status, history, files, children = there
    assert status == "FINISHED" and children == ["classical", "constant", "heuristic"]
    assert {"model", "config", "evaluation", "environment"} <= set(files)
    assert there == here  # nothing lost, nothing twice
    assert all(len({step for step, _ in values}) == len(values) for values in history.values())
    assert project.python("-m", "my_model", "promote", uri).returncode == 0

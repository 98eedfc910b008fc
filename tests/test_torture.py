"""T4 for real: processes are killed at random moments, and what they were doing ends as if nothing had happened.

DEPTH=10 takes that many rounds of random kills; the moments follow from TORTURE_SEED, another one each time.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, environment_python

pytestmark = [pytest.mark.slow, pytest.mark.deep]
EPOCHS, DEADLINE = 6, 300
ROUNDS = int(os.environ.get("DEPTH", "1"))
SEED = int(os.environ.get("TORTURE_SEED", str(time.time_ns() % 10**6)))
FAST = [f"trainer.max_epochs={EPOCHS}"]
PIPELINE = [environment_python(), "-m", "my_model", "pipeline", *FAST]
# What the tracker knows, without what is of the moment.
RECORDS = """
import json
from my_model import tracking
from my_model.params import load
settings = load()
client = tracking.client(settings)
found = []
for run in client.search_runs([client.get_experiment_by_name(settings.tracking.experiment).experiment_id]):
    names = [n for n in run.data.metrics if n.startswith(("train/loss", "val/", "lr-", "train.", "val."))]
    values = {n: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, n)) for n in names}
    known = {"candidate": run.data.tags["candidate"], "status": run.info.status, "record": run.data.tags["record"]}
    found.append({**known, "values": values})
print(json.dumps(sorted(found, key=lambda run: run["candidate"])))
"""


def log(project: Project) -> str:
    return (project.path / "process.log").read_text(encoding="utf-8")


def passed(project: Project, step: int) -> bool:
    """Whether step 0, the start of training, an epoch, or the last step, the start of evaluation, is in the log."""
    if step == 0:
        return "Running stage 'train'" in log(project)
    if step > EPOCHS:
        return "Running stage 'evaluate'" in log(project)
    return f"epoch {step}/{EPOCHS} " in log(project) or passed(project, EPOCHS + 1)


def reach(project: Project, process: subprocess.Popen[str], step: int) -> float:
    """Waits for a step, or for an earlier epoch's having been there before a resume; the time."""
    deadline = time.monotonic() + DEADLINE
    while not any(passed(project, later) for later in range(step, EPOCHS + 2)):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"step {step} was not reached:\n{log(project)[-6000:]}")
        time.sleep(0.01)
    return time.monotonic()


def kill(process: subprocess.Popen[str]) -> None:
    """The whole group at once, as a machine that goes down.

    DVC takes a dead process that nobody has collected yet for one that works: it waits for those as well.
    """
    deadline = time.monotonic() + DEADLINE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.05)


def train_to_the_end(project: Project) -> list[float]:
    """Runs the pipeline up to the evaluation, which is not of interest; the time of each step."""
    with project.started(*PIPELINE) as process:
        times = [reach(project, process, step) for step in range(EPOCHS + 2)]
        kill(process)
    return times


@dataclass(frozen=True)
class Outcome:
    weights: bytes
    runs: list[dict[str, Any]]

    @property
    def record(self) -> str:
        return str(next(run["record"] for run in self.runs if run["candidate"] == "network"))


def outcome(project: Project) -> Outcome:
    """Weights, and what the tracker knows once all is delivered."""
    project.python("-m", "my_model", "sync")
    runs = json.loads(project.python("-c", RECORDS).stdout.splitlines()[-1])
    return Outcome((project.path / "artifacts/model/network.safetensors").read_bytes(), runs)


def assert_same(project: Project, reference: Outcome) -> None:
    """Equal bits; one run and one for each baseline; every metric of every step once, with equal values."""
    found = outcome(project)
    assert found.weights == reference.weights
    assert [(run["candidate"], run["status"]) for run in found.runs] == [
        (r["candidate"], "FINISHED") for r in reference.runs
    ]
    assert [run["values"] for run in found.runs] == [run["values"] for run in reference.runs]


def claimed(project: Project) -> str | None:
    """Key of the run that an interrupted training belongs to."""
    path = project.path / ".state" / "training" / "run.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["key"]) if path.is_file() else None


@pytest.fixture(scope="module")
def ready(split_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which training is the next stage to run."""
    project = copy(split_once, tmp_path_factory.mktemp("torture"))
    if not (project.path / ".dvc").is_dir():
        project.python("-m", "dvc", "init", "--quiet")
    compose = "from my_model.pipeline import write_params; import sys; write_params(sys.argv[1:])"
    project.python("-c", compose, *FAST)
    project.python("-m", "dvc", "repro", "--quiet", "split", extra=path_of(project))
    return project


def copy(project: Project, folder: Path) -> Project:
    path = folder / project.path.name
    shutil.copytree(project.path, path, symlinks=True)
    return Project(path, {**project.env, "PYTHONPATH": str(path / "src")}, project.task)


def path_of(project: Project) -> dict[str, str]:
    """DVC's stages call plain `python`."""
    return {"PATH": os.pathsep.join([str(environment_python().parent), project.env.get("PATH", os.environ["PATH"])])}


@pytest.fixture(scope="module")
def reference(ready: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Outcome, list[float]]]:
    """What a training without a break gives, and how long each of its steps takes in seconds."""
    project = copy(ready, tmp_path_factory.mktemp("reference"))
    times = train_to_the_end(project)
    yield outcome(project), [later - earlier for earlier, later in itertools.pairwise(times)]


@pytest.fixture
def project(ready: Project, tmp_path: Path) -> Project:
    return copy(ready, tmp_path)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_at_random_moments_it_ends_the_same(
    number: int, project: Project, reference: tuple[Outcome, list[float]]
) -> None:
    expected, seconds = reference
    chance, key = random.Random(SEED * 100 + number), None
    print(f"TORTURE_SEED={SEED}, round {number}")
    for _ in range(chance.choice([1, 1, 2, 3])):
        step = chance.randrange(EPOCHS + 1)
        pause = chance.uniform(0, seconds[step])
        print(f"killed {pause:.3f} s after step {step}")
        with project.started(*PIPELINE) as process:
            reach(project, process, step)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(pause)
            kill(process)
        key = key or claimed(project)
        assert claimed(project) in (None, key), "a kill led to another run"
    train_to_the_end(project)
    assert_same(project, expected)
    assert key in (None, outcome(project).record)


def test_a_training_whose_dvc_was_killed_is_waited_for(
    project: Project, reference: tuple[Outcome, list[float]]
) -> None:
    with project.started(*PIPELINE) as process:
        reach(project, process, 1)
        (dvc,) = children(process.pid)
        left = descendants(dvc)
        for pid in left:  # so that it is still there when the next one begins
            os.kill(pid, signal.SIGSTOP)
        os.kill(dvc, signal.SIGKILL)
        process.wait(30)
        with project.started(*PIPELINE) as again:
            until(project, lambda: "another training works in this folder: waiting" in log(project))
            for pid in left:
                os.kill(pid, signal.SIGCONT)
            reach(project, again, EPOCHS + 1)
            kill(again)
    assert_same(project, reference[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_goes_on(
    number: signal.Signals, project: Project, reference: tuple[Outcome, list[float]]
) -> None:
    # Whoever started the tests in the background had interrupts ignored.
    restore = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with project.started(environment_python(), "-c", restore, *PIPELINE) as process:
        reach(project, process, 2)
        os.killpg(process.pid, number)
        assert process.wait(60) == (130 if number == signal.SIGINT else -signal.SIGTERM)
        until(project, lambda: "interrupted" in log(project))
        ended(project, "KILLED")
    assert "Traceback" not in log(project)
    key = claimed(project)
    train_to_the_end(project)
    assert_same(project, reference[0])
    assert outcome(project).record == key


def test_a_full_disk_is_told_and_nothing_is_lost(project: Project, reference: tuple[Outcome, list[float]]) -> None:
    """A limit on the size of files, which a checkpoint is the first to pass, stands for the disk."""
    done = project.run("bash", "-c", 'ulimit -f 1200; exec "$0" "$@"', *PIPELINE, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and "File too large: mend that" in told[0] and ".state" in told[0], done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    ended(project, "FAILED")
    train_to_the_end(project)
    assert_same(project, reference[0])


def test_a_worker_that_dies_ends_the_training_with_one_line(project: Project) -> None:
    command = [environment_python(), "-m", "my_model", "train", "trainer=ddp", *FAST, "hydra.run.dir=outputs/two"]
    with project.started(*command) as process:
        reach(project, process, 2)
        workers = [
            pid for pid in children(process.pid) if b"train_ddp_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(workers[0], signal.SIGKILL)
        assert process.wait(60) == 2
    assert log(project).count("error: another process of this training has ended") == 1
    ended(project, "FAILED")
    project.run(*command)
    runs = outcome_of_runs(project)
    assert [run["status"] for run in runs] == ["FINISHED"] * 4


def outcome_of_runs(project: Project) -> list[dict[str, Any]]:
    project.python("-m", "my_model", "sync")
    found: list[dict[str, Any]] = json.loads(project.python("-c", RECORDS).stdout.splitlines()[-1])
    return found


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def until(project: Project, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, log(project)[-6000:]
        time.sleep(0.05)


def ended(project: Project, status: str) -> None:
    """The one run there is gets this status in the tracker."""
    until(project, lambda: [run["status"] for run in outcome_of_runs(project)] == [status])

"""The verb `serve` as a real process on a real port, and `replay` against it."""

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kinds import every_kind

from {{cookiecutter.package_name}}.monitoring.quality import measure
from {{cookiecutter.package_name}}.serving import replay
from {{cookiecutter.package_name}}.serving.predictor import Champion
from {{cookiecutter.package_name}}.serving.store import recent
from {{cookiecutter.package_name}}.settings import Settings
from {{cookiecutter.package_name}}.task.behaviour import declare

# What training needs and serving must not: none of it is in the image.
FORBIDDEN = {
    "torch",
    "lightning",
    "mlflow",
    "dvc",
    "pandas",
    "sklearn",
    "hydra",
    "omegaconf",
    "matplotlib",
    "onnx",
}
SOURCE = Path(__file__).parents[2] / "src"
RUN = """
import atexit, runpy, sys
atexit.register(lambda: print("MODULES", *sys.modules, flush=True))
sys.argv = ["serve", *sys.argv[1:]]
runpy.run_module("{{cookiecutter.package_name}}", run_name="__main__", alter_sys=True)
"""
Start = Callable[..., "Process"]


class Process:
    """A serving process; `url` is None if it ended instead of serving."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        command = [sys.executable, "-c", RUN, "serve", *overrides]
        env = {**os.environ, "PYTHONPATH": str(SOURCE), "HOME": str(folder / "home")}
        env.pop("ORT_DISABLE_TELEMETRY", None)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True
        )
        self.timer = threading.Timer(60, self.process.kill)
        self.timer.start()
        assert self.process.stderr is not None
        self.lines: list[str] = []
        self.url: str | None = None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"http://\S+", line):
                self.url = found.group()
                break

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Exit code, output and errors after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        self.timer.cancel()
        return self.process.returncode, out, "".join(self.lines) + err


@pytest.fixture
def project(settings: Settings, tmp_path: Path) -> Path:
    """A project folder whose params.yaml points into itself."""
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(settings.model_dump(mode="json")), encoding="utf-8"
    )
    return tmp_path


@pytest.fixture
def start(project: Path) -> Iterator[Start]:
    running: list[Process] = []

    def one(*overrides: str) -> Process:
        running.append(Process(project, *overrides))
        return running[-1]

    yield one
    for process in running:
        process.end(signal.SIGKILL)


def post(url: str, path: str, content: Any) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.load(response)
    connection.close()
    assert response.status == 200 and response.getheader("server") is None
    return answer


@pytest.mark.row("S1", "P4")
def test_serves_without_the_training_stack_and_flushes(
    start: Start, live: str, settings: Settings, rows: Any, project: Path
) -> None:
    process = start()
    assert process.url is not None, process.end()
    answer = post(process.url, "/predict", {"instances": rows.items[:50]})
    assert answer["model"]["identity"] == live
    code, out, err = process.end()
    assert code == 0, err
    assert "Traceback" not in err
    assert len(recent(settings.paths.store, 100)) == 50
    loaded = {name.partition(".")[0] for name in out.partition("MODULES")[2].split()}
    assert "onnxruntime" in loaded and not loaded & FORBIDDEN
    assert not (
        project / "home"
    ).exists()  # where ONNX Runtime keeps the identity under which it reports its use


def test_small_answers_do_not_wait_for_acknowledgements(start: Start, live: str) -> None:
    process = start()
    assert process.url is not None
    connection = http.client.HTTPConnection(process.url.removeprefix("http://"), timeout=30)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        times.append(time.perf_counter() - started)
    connection.close()
    assert sorted(times)[10] < 0.03  # waiting costs 0.04 s each


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send one process an interrupt")
def test_an_interrupt_ends_it_cleanly(start: Start, live: str) -> None:
    process = start()
    assert process.url is not None
    code, _, err = process.end(signal.SIGINT)
    assert code == 0 and "Traceback" not in err and "KeyboardInterrupt" not in err


def test_no_model_and_a_taken_port_are_one_line_each(
    start: Start, release: Callable[..., str]
) -> None:
    code, _, err = start().end()
    assert code == 2 and "run `make pipeline` first" in err and len(err.splitlines()) == 1
    release("1")
    first = start()
    assert first.url is not None
    port = first.url.rpartition(":")[2]
    code, _, err = start(f"serving.port={port}").end()
    assert code == 2 and "serving.port=" in err and len(err.splitlines()) == 1


def replayed(settings: Settings, url: str, *flags: str) -> int:
    parser = argparse.ArgumentParser()
    replay.arguments(parser)
    return replay.run(settings, parser.parse_args(["--url", url, *flags]))


@pytest.fixture
def data(settings: Settings, rows: Any) -> None:
    """A test split and a manifest of raw data."""
    settings.paths.splits.mkdir(parents=True)
    rows.table.to_parquet(settings.paths.splits / "test.parquet")
    settings.paths.raw.mkdir(parents=True)
    (settings.paths.raw / "manifest.json").write_text("{}", encoding="utf-8")


@every_kind
@pytest.mark.row("S10")
def test_replay_compares_scores_and_reports(
    start: Start, live: str, settings: Settings, data: None
) -> None:
    process = start()
    assert process.url is not None
    assert replayed(settings, process.url, "--rows", "60", "--feedback") == 0
    report = json.loads((settings.paths.reports / "replay.json").read_text(encoding="utf-8"))
    assert (
        report["rows"] == 60 and report["different"] == 0 and report["provenance"]["bundle"] == live
    )
    process.end()
    stored = recent(settings.paths.store, 1000)
    labelled = recent(settings.paths.store, 1000, labelled=True)
    assert len(stored) == 68 and len(labelled) == 60  # the bundle's examples come first
    assert report["right"] == pytest.approx(
        1 - measure(labelled, settings.data.labels, 0.9).errors / 60
    )
    assert 0.3 < report["right"] <= 1


@pytest.mark.row("S10")
def test_replay_notices_other_answers_and_a_dead_server(
    start: Start, live: str, settings: Settings, data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, own = start(), Champion.encode
    assert process.url is not None
    with monkeypatch.context() as patch:
        patch.setattr(
            Champion,
            "encode",
            lambda self, answers: [{**a, "abstain": None} for a in own(self, answers)],
        )
        assert replayed(settings, process.url, "--rows", "10") == 1
    process.process.send_signal(signal.SIGKILL)
    with pytest.raises(ValueError, match="make serve"):
        process.process.wait(30)
        replayed(settings, process.url)


@pytest.mark.row("S10")
def test_replay_asks_for_what_it_needs(live: str, settings: Settings, data: None) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        replayed(settings, "http://127.0.0.1:9", "--split", "no")
    with pytest.raises(ValueError, match="--rows"):
        replayed(settings, "http://127.0.0.1:9", "--rows", "0")
    with pytest.raises(ValueError, match="NAME:SEVERITY"):
        replayed(settings, "http://127.0.0.1:9", "--corrupt", "nothing:9")


@pytest.mark.row("S10")
def test_replay_corrupts_and_leaves_out_what_becomes_invalid(
    start: Start, live: str, settings: Settings, data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start()
    assert process.url is not None
    name, seen = next(iter(declare(settings.data).perturbations)), list[Any]()

    def every_third(instance: Any, features: Any) -> None:
        seen.append(instance)
        if len(seen) % 3 == 0:
            raise ValueError("a field: a rule")

    monkeypatch.setattr(replay, "check_instance", every_third)
    assert replayed(settings, process.url, "--rows", "30", "--corrupt", f"{name}:2") == 0
    report = json.loads((settings.paths.reports / "replay.json").read_text(encoding="utf-8"))
    assert report["left_out"] >= 10 and report["rows"] == 30 - report["left_out"]

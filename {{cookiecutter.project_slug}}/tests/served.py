"""A small real bundle for any task and kind, fitted by least squares, and a real server on a free
port.
"""

import argparse
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
import yaml
from hydra.utils import instantiate
from kinds import as_kind, relabel, targets
from onnx import TensorProto, helper, numpy_helper

from {{cookiecutter.package_name}} import logs
from {{cookiecutter.package_name}}.modeling import kinds
from {{cookiecutter.package_name}}.packaging.bundle import Card, seal
from {{cookiecutter.package_name}}.serving import replay
from {{cookiecutter.package_name}}.serving.app import create
from {{cookiecutter.package_name}}.serving.store import Record, Store
from {{cookiecutter.package_name}}.settings import Settings, parse
from {{cookiecutter.package_name}}.task import features
from {{cookiecutter.package_name}}.types import Rule

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
ROWS = 400
Item = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Raw rows of the task with their request items, model inputs and labels; `wrong` is no label
    of theirs.
    """

    table: Any
    items: list[Item]
    inputs: dict[str, Any]
    labels: list[Any]
    centre: dict[str, Any]  # of an input, what a client of /v2 does not subtract

    @property
    def label(self) -> Any:
        """A label that feedback may have."""
        return self.labels[0]

    @property
    def wrong(self) -> Any:
        """A label of another kind."""
        return "no such label" if isinstance(self.label, str) else "12"


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Fails if the condition does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    return until


@pytest.fixture(scope="session")
def raw_settings() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def table(raw_settings: dict[str, Any]) -> Any:
    found = instantiate(raw_settings["data"]["source"])
    return found.sample(min(ROWS, len(found)), random_state=1).reset_index(drop=True)


@pytest.fixture
def kind(request: pytest.FixtureRequest, raw_settings: dict[str, Any]) -> str:
    """The task's own kind, or the one that a test is marked with."""
    return str(getattr(request, "param", raw_settings["data"]["kind"]))


@pytest.fixture
def rows(raw_settings: dict[str, Any], table: Any, kind: str) -> Rows:
    table = table.assign(label=relabel(table["label"], raw_settings, kind))
    records = table.to_dict("records")
    parsed = features.Features.model_validate(raw_settings["data"]["features"])
    items = [features.row_to_instance(record, parsed) for record in records]
    inputs = features.encode({str(k): v for k, v in table.to_dict("list").items()}, parsed)
    centre = {"numeric": parsed.centre} if hasattr(parsed, "centre") else {}
    return Rows(table, items, dict(inputs), [r["label"] for r in records], centre)


@pytest.fixture
def settings(tmp_path: Path, raw_settings: dict[str, Any], kind: str) -> Settings:
    """The project's settings for a kind, with every path in a folder of this test's own."""
    raw = as_kind(raw_settings, kind)
    paths = {name: str(tmp_path / path) for name, path in raw["paths"].items()}
    return parse({**raw, "paths": paths, "serving": {**raw["serving"], "port": 0}})


def build(folder: Path, settings: Settings, rows: Rows, temperature: float = 1.0) -> str:
    """Writes a sealed bundle and returns its identity; another temperature makes another bundle."""
    folder.mkdir(parents=True)
    data, inputs = settings.data, rows.inputs
    raw = network(folder / "model.onnx", rows, data.labels)
    shapes = {
        name: {"dtype": "float32", "shape": [-1, *array.shape[1:]]}
        for name, array in inputs.items()
    }
    rule = Rule(temperature=temperature, conformal_quantile=0.9)
    rule = rule.model_copy(
        update={"threshold": 0.3 if data.kind == "binary" else None, "shift": 0.1}
    )
    answers = kinds.of(data.kind).decide(raw, rule)
    rule = rule.model_copy(update={"abstain_below": float(np.median(answers.confidence))})
    card = Card.model_validate(
        {
            "name": settings.project.name,
            "kind": data.kind,
            "task": data.name,
            "predicts": data.predicts,
            "unit": "kg",
            "labels": data.labels,
            "inputs": shapes,
            "outputs": {"raw": {"dtype": "float32", "shape": [-1, raw.shape[1]]}},
            "features": data.features,
            "decision": rule,
            "label_scale": 1.0 if data.labels else float(np.std(rows.labels)),
            "candidate": "classical",
            "owner": "test",
            "code": "0",
            "data": "0",
            "dependencies": {},
        }
    )
    (folder / "bundle.json").write_text(card.model_dump_json(), encoding="utf-8")
    examples = {"instances": rows.items[:8], "raw": raw[:8].astype(float).tolist()}
    (folder / "examples.json").write_text(json.dumps(examples), encoding="utf-8")
    signals = features.signals(inputs, features.Features.model_validate(data.features))
    arrays = {
        "signals": np.stack(list(signals.values()), axis=1),
        "signal_names": np.array(list(signals)),
    }
    arrays |= kinds.of(data.kind).reference(answers)
    np.savez(folder / "reference.npz", allow_pickle=False, **arrays)
    return seal(folder)


def network(path: Path, rows: Rows, labels: list[str]) -> Any:
    """Writes an ONNX model: flatten each input, join, one linear layer. Returns its raw outputs for
    the rows.

    Where it predicts values, its second output is the logarithm of their standard deviation, which
    differs by row.
    """
    inputs = rows.inputs
    flat = np.concatenate([array.reshape(len(array), -1) for array in inputs.values()], axis=1)
    design = np.concatenate([flat, np.ones((len(flat), 1))], axis=1).astype(np.float64)
    gram, wanted = design.T @ design + np.eye(design.shape[1]), targets(rows.table["label"], labels)
    solution = np.linalg.solve(gram, design.T @ wanted)
    if not labels:
        mean = np.log(np.abs(design @ solution - wanted).mean())
        spread = mean + np.random.default_rng(0).normal(0, 0.3, wanted.shape)
        solution = np.hstack([solution, np.linalg.solve(gram, design.T @ spread)])
    weights, bias = solution[:-1].astype(np.float32), solution[-1].astype(np.float32)
    nodes = [helper.make_node("Flatten", [name], [f"flat_{name}"]) for name in inputs]
    nodes.append(
        helper.make_node("Concat", [f"flat_{name}" for name in inputs], ["joined"], axis=1)
    )
    nodes.append(helper.make_node("Gemm", ["joined", "weights", "bias"], ["raw"]))
    entries = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", *a.shape[1:]])
        for n, a in inputs.items()
    ]
    answer = helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["n", len(bias)])
    parameters = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(bias, "bias"),
    ]
    graph = helper.make_graph(nodes, "linear", entries, [answer], parameters)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(path),
    )
    return flat.astype(np.float32) @ weights + bias


def point(live: Path, version: str, identity: str) -> None:
    """Names a bundle the champion, in one step as `pull` does."""
    entry = {"version": version, "path": version, "identity": identity}
    draft = live / ".current.json.tmp"
    draft.write_text(json.dumps({"champion": entry, "challenger": None}), encoding="utf-8")
    draft.replace(live / "current.json")


@pytest.fixture
def release(settings: Settings, rows: Rows) -> Callable[..., str]:
    """Builds a bundle and names it the champion, in one step as `pull` does: its identity."""

    def one(version: str, temperature: float = 1.0, damaged: bool = False) -> str:
        identity = build(settings.paths.live / version, settings, rows, temperature)
        if damaged:
            (settings.paths.live / version / "model.onnx").write_bytes(b"not a model")
        point(settings.paths.live, version, identity)
        return identity

    return one


@pytest.fixture
def live(release: Callable[..., str]) -> str:
    """A champion in live/, version "1"; the value is its identity."""
    return release("1")


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[..., httpx.Client]]:
    """Starts the application in a thread on a free port, with changes to the serving settings;
    returns a client.
    """
    running: list[tuple[uvicorn.Server, threading.Thread, httpx.Client]] = []

    def start(**changes: Any) -> httpx.Client:
        serving = settings.serving.model_copy(update=changes)
        app = create(settings.model_copy(update={"serving": serving}))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False)
        running.append((server, thread, client))
        return client

    yield start
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join()
    logger = logs.get("serve", settings.paths.logs)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)  # the next test logs to a folder of its own
        handler.close()
    logger.propagate = True


@pytest.fixture
def client(serve: Callable[..., httpx.Client], live: str) -> httpx.Client:
    return serve()


def record(i: int, **changes: Any) -> Record:
    signals = {"probabilities": [0.25, 0.75], "embedding": None, "signals": {"mean": 0.5}}
    base: dict[str, Any] = {
        "prediction_id": f"id-{i}",
        "time": float(i),
        "version": "1",
        "identity": "abc",
    }
    base |= {"instance": {"x": [i, "\ud800"]}, "label": "b", "confidence": 0.75, "abstain": False}
    return Record(**{**base, "latency_ms": 1.5, "signals": signals, **changes})  # type: ignore[typeddict-item]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store" / "predictions.db", max_rows=1000)
    yield store
    store.close()


@pytest.fixture
def blocked(store: Store) -> Iterator[Callable[[], None]]:
    """The file is locked by somebody else until the value is called."""
    store.append([record(-1)])
    store.flush()
    connection = sqlite3.connect(store.path, check_same_thread=False, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield lambda: connection.rollback()
    connection.close()


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

"""Real trackers: an MLflow server on PostgreSQL with an S3-compatible store, TensorBoard, Weights & Biases offline."""

import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BUILD, Baker, Project, environment_python
from test_sources import COMPOSE, free_port, postgres, stop, store

__all__ = ["postgres", "store"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.deep]
EXTRAS = BUILD.parent / "trackers"  # what the server needs, and the loggers: beside the environment of all tests
SERVER, LOGGERS = ("psycopg[binary]", "boto3"), ("tensorboard", "wandb")
STAGES = ("ingest", "validate", "split", "train", "evaluate", "package", "promote", "pull")
SMALL = ("trainer.max_epochs=2", "trainer.enable_progress_bar=false")
BUCKET = """
import boto3, sys
store = boto3.client("s3")
if sys.argv[1:] == ["make"]:
    store.create_bucket(Bucket="bucket")
else:
    for page in store.get_paginator("list_objects_v2").paginate(Bucket="bucket"):
        print(*[file["Key"] for file in page.get("Contents", [])], sep="\\n")
"""
RUN = """
import json
from my_model import tracking
from my_model.params import load
settings = load([])
key = json.load(open("reports/run.json"))["record"]
client = tracking.client(settings)
run = tracking.find_record(client, settings.tracking.experiment, key)
history = {n: [[m.step, m.value] for m in client.get_metric_history(run.info.run_id, n)] for n in run.data.metrics}
print(json.dumps({"key": key, "history": history}))
"""
EVENTS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({n: [[e.step, e.value] for e in events.Scalars(n)] for n in events.Tags()["scalars"]}))
"""
OFFLINE = """
import collections, glob, json, sys
from wandb.proto.wandb_internal_pb2 import Record
[file] = glob.glob(sys.argv[1])
data, at, line, found = open(file, "rb").read(), 7, b"", collections.defaultdict(list)
while at < len(data):  # LevelDB's log format: blocks of 32 KiB, pieces with a header of checksum, length and type
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768
        continue
    size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
    line, at = line + data[at + 7 : at + 7 + size], at + 7 + size
    if kind in (1, 4):  # whole, or the last piece
        items = {i.key or ".".join(i.nested_key): i.value_json for i in Record.FromString(line).history.item}
        line = b""
        for name, value in items.items():
            found[name].append([json.loads(items.get("trainer/global_step", "null")), json.loads(value)])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def extras(shared: Project) -> Path:
    """Installed once; the loggers' requirements at the versions of the environment that they join."""
    if not (EXTRAS / "wandb").exists():
        EXTRAS.mkdir(parents=True, exist_ok=True)
        limits = EXTRAS / "limits.txt"
        frozen = shared.python("-m", "uv", "pip", "freeze", "--exclude-editable").stdout
        limits.write_text("".join(f"{x}\n" for x in frozen.splitlines() if "==" in x), encoding="utf-8")
        install = ("-m", "uv", "pip", "install", "--quiet", "--target", EXTRAS)
        shared.python(*install, *SERVER)
        shared.python(*install, "-c", limits, *LOGGERS)
    return EXTRAS


@pytest.fixture
def project(fresh: Baker, extras: Path) -> Project:
    """A project that also finds what the environment of all tests does not have."""
    project = fresh()
    project.env["PYTHONPATH"] += f"{os.pathsep}{extras}"
    project.run("git", "init", "--quiet")
    return project


@contextlib.contextmanager
def mlflow_server(project: Project, url: str, environment: dict[str, str]) -> Iterator[str]:
    """Its address."""
    port = free_port()
    command = [str(environment_python()), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", url, "--artifacts-destination", "s3://bucket/mlflow"]
    with (project.path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=project.env | environment, cwd=project.path)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240  # it makes its tables first
        while not answers(f"{address}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail((project.path / "server.log").read_text(encoding="utf-8")[-3000:])
            time.sleep(0.2)
        yield address
    finally:
        stop(process)


def answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
        return True
    return False


def ask(address: str, **body: Any) -> Any:
    """Answer of the server's REST API, which is not ours."""
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def test_everything_is_on_a_server_with_a_database_and_a_store(
    project: Project, postgres: tuple[str, Any], store: tuple[dict[str, str], Any]
) -> None:
    keys = store[0]
    project.python("-c", BUCKET, "make", extra=keys)
    with mlflow_server(project, postgres[0], keys) as address:
        project.python("-c", COMPOSE, f"tracking.uri={address}")  # the one change
        for stage in STAGES:
            done = project.python("-m", "my_model", stage, *(["--pipeline"] if stage == "train" else []), check=False)
            assert done.returncode == 0, f"{stage}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        api = f"{address}/api/2.0/mlflow"
        experiment = ask(f"{api}/experiments/get-by-name?experiment_name=my-model")["experiment"]
        runs = ask(f"{api}/runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
        tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs]
        names = [tag["candidate"] for tag in tags]
        assert sorted(names) == ["classical", "constant", "heuristic", "network"]
        for run, tag in zip(runs, tags, strict=True):
            (given,) = run["inputs"]["dataset_inputs"]
            assert given["dataset"]["digest"] == tag["dvc.data/splits"] and "again" in tag["mlflow.note.content"]
            assert "on digits" in run["info"]["run_name"] and tag["mlflow.source.name"].startswith("python -m my_model")
        assert {run["info"]["status"] for run in runs} == {"FINISHED"}
        run = runs[names.index("network")]
        metrics = {m["key"]: m["value"] for m in run["data"]["metrics"]}
        assert {"train/loss", "val.accuracy", "test.accuracy", "gate.M10.calibration", "package.parity"} <= set(metrics)
        assert any(name.startswith("system/cpu") for name in metrics)
        registered = ask(f"{api}/registered-models/alias?name=my-model&alias=champion")["model_version"]
        current = json.loads((project.path / "live" / "current.json").read_text("utf-8"))["champion"]
        assert registered["run_id"] == run["info"]["run_id"] == current["run_id"]
        assert current["version"].split("-")[0] == registered["version"]
    assert not [*project.path.glob("mlflow.db*"), *project.path.glob("mlruns")]  # but for the local store in .state
    files = project.python("-c", BUCKET, extra=keys).stdout.split()
    folder = f"mlflow/{experiment['experiment_id']}/{run['info']['run_id']}/artifacts/"
    kept = {name.removeprefix(folder) for name in files if name.startswith(folder)}
    assert {"model/best.ckpt", "config/params.yaml", "evaluation/evaluation.json", "panel/epoch-002.png"} <= kept


def train(project: Project, *overrides: str, code: int = 0) -> tuple[str, dict[str, list[list[float]]], str]:
    """Trains; the run's key, its metrics by step, and what was said."""
    project.python("-c", COMPOSE, *overrides, *SMALL)
    for stage in ("ingest", "validate", "split"):
        project.python("-m", "my_model", stage)
    done = project.python("-m", "my_model", "train", "--pipeline", check=False)
    assert done.returncode == code, done.stderr
    if code:
        return "", {}, done.stderr
    found = json.loads(project.python("-c", RUN).stdout.splitlines()[-1])
    return found["key"], found["history"], done.stderr


def same(found: dict[str, list[list[float]]], recorded: dict[str, list[list[float]]]) -> bool:
    """Whether the second logger has each epoch metric of the run, at its step, as exactly as it keeps numbers."""
    names = [name for name in recorded if name.startswith(("train/", "val/"))]
    assert {"train/loss", "val/loss", "val/accuracy"} <= set(names) <= set(found)
    return all(found[name] == [[step, pytest.approx(v, rel=1e-5)] for step, v in recorded[name]] for name in names)


def test_tensorboard_has_the_numbers_of_the_run(project: Project) -> None:
    key, recorded, _ = train(project, "logger=tensorboard")
    assert len(recorded["val/loss"]) == 2
    found = json.loads(project.python("-c", EVENTS, f".state/tensorboard/{key}").stdout.splitlines()[-1])
    assert same(found, recorded)


def test_weights_and_biases_has_the_numbers_of_the_run(project: Project) -> None:
    key, recorded, _ = train(project, "logger=wandb")
    file = f".state/wandb/wandb/offline-run-*-{key}/run-{key}.wandb"
    assert same(json.loads(project.python("-c", OFFLINE, file).stdout.splitlines()[-1]), recorded)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_says_what_to_install(fresh: Baker, shared: Project, name: str) -> None:
    project = fresh()
    project.run("git", "init", "--quiet")
    _, _, said = train(project, f"logger={name}", code=2)
    assert "error: " in said and name in said and "pip install" in said and "Traceback" not in said

"""Delivers recorded runs to the tracker; nothing is lost while it is away, and nothing arrives
twice.

`sync --follow KEY` is what training starts beside itself: it delivers while training works, samples
the machine, and ends the runs of a training that vanished.
"""

import argparse
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock

from .. import logs, tracking
from ..settings import Settings
from .journal import OPENED, Journal, Line, journals

if TYPE_CHECKING:
    from mlflow import MlflowClient

TICK, SAMPLE_EVERY = (
    1.0,
    5,
)  # seconds between two deliveries, ticks between two samples of the machine
BATCH = 500  # metrics in one request; MLflow takes 1,000
Sampler = Callable[[], dict[str, float]]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--follow", metavar="KEY", help=argparse.SUPPRESS)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Exit 0 when all is delivered, 1 while the tracker does not answer."""
    folder = settings.paths.records
    if args.follow:
        return follow(folder, args.follow, os.getppid())
    with logs.stage("sync") as log:
        waiting = sum(journal.waits() for journal in journals(folder))
        problem = deliver_all(folder, forget=True)
        if problem:
            left = sum(journal.waits() for journal in journals(folder))
            log.error("%d run(s) still wait in %s: %s", left, folder, problem)
            return 1
        log.info(
            "delivered %d run(s)" if waiting else "nothing waits", *([waiting] if waiting else [])
        )
    return 0


def follow(folder: Path, key: str, pid: int) -> int:
    """Until standard input ends, with the process that started this one; then once more, for the
    rest.
    """
    ended = threading.Event()
    threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
    journal, sample, ticks = Journal(folder / key), sampler(), 0
    begun = next(journal.lines())["time"]
    while ticks == 0 or not ended.wait(
        TICK
    ):  # however short the training, the machine is sampled once
        if ticks % SAMPLE_EVERY == 0:
            values = {f"system/{name}": value for name, value in sample().items()}
            journal.metrics(values, step=int(time.time() - begun / 1000))
        deliver_all(folder)
        ticks += 1
    end_orphans(folder, pid)
    return 1 if deliver_all(folder) else 0


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()


def sampler() -> Sampler:
    """MLflow's own collectors: use of CPU, memory, disk, network and, where there is one, GPU."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor, GPUMonitor]
    monitors = []
    for kind in kinds:
        with suppress(Exception):  # no NVIDIA driver, or its library is not installed
            monitors.append(kind())

    def sample() -> dict[str, float]:
        found: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return found

    return sample


def end_orphans(folder: Path, pid: int) -> None:
    """Marks as KILLED what this process, or one that is gone, opened and did not end."""
    for journal in journals(folder):
        with journal.lock():
            opened = [line for line in journal.lines() if line["kind"] in OPENED]
            gone = bool(opened) and (
                opened[-1]["pid"] == pid or not psutil.pid_exists(opened[-1]["pid"])
            )
            if gone and not journal.closed():
                journal.append("finish", status="KILLED")


def deliver_all(folder: Path, forget: bool = False) -> str | None:
    """Delivers what waits, parents first; one line says why where that failed. Can `forget` runs
    that are over.
    """
    problems: dict[str, str] = {}
    for journal in journals(folder):
        try:
            address = next(journal.lines())["uri"]
            if address in problems:
                continue
            with FileLock(journal.folder / "delivery.lock"):
                if journal.waits():
                    deliver(journal)
            if forget and over(journal):
                shutil.rmtree(journal.folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process delivered the last of it and forgot the run
        except Exception as error:
            problems[address] = logs.explain(error) or repr(error)
    return next(iter(problems.values()), None)


def over(journal: Journal) -> bool:
    """Whether nobody goes on with the run: it is finished, and so is the one above it, which may be
    done again.
    """
    parent = next(journal.lines()).get("parent")
    above = Journal(journal.folder.parent / parent) if parent else None
    return (
        journal.closed()
        and not journal.resumable()
        and (above is None or not above.exists() or over(above))
    )


def deliver(journal: Journal) -> None:
    """Sends the lines after the last one delivered, in order. Raises what MLflow raises where it
    does not answer.
    """
    first, known = next(journal.lines()), journal.delivered
    client = tracking.connect(first["uri"], first["experiment"])
    run_id = known["run_id"] or find_or_create(client, journal, first)
    values: list[Line] = []

    def send_values(end: int) -> None:
        log_values(client, run_id, values)
        values.clear()
        journal.deliver_to(end, run_id)

    for line in journal.lines(known["offset"]):
        if line["kind"] == "metrics":
            values.append(line)
            if sum(len(v["values"]) for v in values) >= BATCH:
                send_values(line["end"])
            continue
        if values:
            send_values(values[-1]["end"])
        send(client, journal, run_id, line)
        journal.deliver_to(line["end"], run_id)
    if values:
        send_values(values[-1]["end"])


def find_or_create(client: "MlflowClient", journal: Journal, first: Line) -> str:
    """The tracker's run: it may be there already, where the answer to its creation was lost."""
    key = first.get("record", journal.key)
    known = tracking.find_record(client, first["experiment"], key)
    if known is not None:
        return str(known.info.run_id)
    tags = {**first.get("tags", {}), "record": key}
    if first.get("parent"):
        parent = Journal(journal.folder.parent / first["parent"])
        above = parent.delivered["run_id"] if parent.exists() else None
        found = (
            None if above else tracking.find_record(client, first["experiment"], first["parent"])
        )
        tags["mlflow.parentRunId"] = above or (found.info.run_id if found else "")
    experiment = client.get_experiment_by_name(first["experiment"])
    assert experiment is not None
    made = client.create_run(
        experiment.experiment_id, first["time"], tags, first.get("name", "restored")
    )
    return str(made.info.run_id)


def send(client: "MlflowClient", journal: Journal, run_id: str, line: Line) -> None:
    """One line that is not of metrics. What MLflow refuses for good is told, and left out."""
    from mlflow import MlflowException
    from mlflow.entities import RunTag

    try:
        if line["kind"] == "params":
            log_params(client, run_id, line["values"])
        elif line["kind"] == "tags":
            client.log_batch(
                run_id, tags=[RunTag(name, value) for name, value in line["values"].items()]
            )
        elif line["kind"] == "artifact":
            send_file(client, journal, run_id, line)
        elif line["kind"] == "resume":
            client.update_run(run_id, "RUNNING")
        elif line["kind"] == "finish":
            client.set_terminated(run_id, line["status"], line["time"])
    except MlflowException as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
        logs.get("sync").warning(
            "the tracker refused %s of run %s: %s", line["kind"], run_id, logs.explain(error)
        )


def log_values(client: "MlflowClient", run_id: str, lines: list[Line]) -> None:
    """Metrics; MLflow keeps one that it has already, with equal name, time, step and value, only
    once.
    """
    from mlflow.entities import Metric

    metrics = [
        Metric(k, v, line["time"], line["step"])
        for line in lines
        for k, v in line["values"].items()
    ]
    client.log_batch(run_id, metrics)


def log_params(client: "MlflowClient", run_id: str, values: dict[str, str]) -> None:
    from mlflow.entities import Param
    from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

    long = [name for name, value in values.items() if len(value) > MAX_PARAM_VAL_LENGTH]
    if long:
        client.set_tag(run_id, "params.in_config_only", ", ".join(long))
        client.log_dict(run_id, {name: values[name] for name in long}, "config/long_params.yaml")
    kept = [Param(name, value) for name, value in values.items() if name not in long]
    for start in range(0, len(kept), 100):
        client.log_batch(run_id, params=kept[start : start + 100])


def send_file(client: "MlflowClient", journal: Journal, run_id: str, line: Line) -> None:
    path = journal.folder / line["file"]
    if not path.exists():
        return  # delivered before a delivery was cut off
    if line["whole"]:
        client.log_artifacts(run_id, str(path), line["folder"] or None)
    else:
        client.log_artifact(run_id, str(path), line["folder"] or None)
    shutil.rmtree(path.parent)

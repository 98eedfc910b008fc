"""The record of every run, in MLflow. A run is written to a store on this machine; where
`tracking.uri` is a server, mirror.py copies it there, so that no training waits for a server.
"""

import os
import platform
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psutil
import yaml

from . import glance, logs
from .provenance import environment, installed, read_json, uncommitted, user, write_json
from .provenance import provenance_tags as provenance_tags
from .settings import Settings
from .store import SQLITE, local_uri, mirrored, warn_of_records
from .store import client as client
from .store import connect as connect
from .store import experiment_id as experiment_id
from .store import find_record as find_record
from .store import upload as upload

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_FILE = "run.json"
PATCH = "uncommitted.diff"
MAX_TAG = 5000  # characters, in every version of MLflow


@dataclass
class Run:
    """One run in a store that always answers; `id` and `client` are the tracker's, where a copy has
    `key` as its tag `record`. As a context it ends as FINISHED, FAILED or, interrupted, as KILLED.
    """

    settings: Settings
    store: "MlflowClient"
    local_id: str
    key: str
    child: bool = False
    resumed: bool = False  # an earlier process began it

    @property
    def mirrored(self) -> bool:
        """Whether the tracker is another store than this run's."""
        return self.store.tracking_uri.startswith(SQLITE) and mirrored(self.settings)

    @property
    def client(self) -> "MlflowClient":
        return client(self.settings)

    @cached_property
    def id(self) -> str:
        """Raises ValueError where the tracker is a server that does not answer."""
        if not self.mirrored:
            return self.local_id
        deliver(self.settings, must=True)
        run = find_record(self.client, self.settings.tracking.experiment, self.key)
        return str(run.info.run_id)

    def params(self, values: dict[str, Any]) -> None:
        """Those of a name or length that MLflow refuses stand in config/params.yaml alone."""
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

        recorded = self.store.get_run(self.local_id).data.params  # MLflow refuses to change one
        flat = {name: str(value) for name, value in flatten(values).items()}
        names = [k for k, text in flat.items() if len(text) <= MAX_PARAM_VAL_LENGTH]
        new = [k for k in names if k == glance.clean(k) and k not in recorded]
        self.store.log_batch(self.local_id, params=[Param(name, flat[name]) for name in new])

    def metrics(self, values: dict[str, float], prefix: str = "", step: int = 0) -> None:
        """Values of an optimizer step or, without one, of the whole run; not rounded: `reproduce`
        compares every bit.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # What an interrupted process recorded at its end is not recorded again.
        recorded = self.store.get_run(self.local_id).data.metrics if self.resumed else {}
        named = {glance.clean(f"{prefix}{name}"): float(v) for name, v in values.items()}
        metrics = [Metric(name, value, now, step) for name, value in named.items()]
        new = [m for m in metrics if step or recorded.get(m.key) != m.value]
        self.store.log_batch(self.local_id, metrics=new)

    def tags(self, values: dict[str, Any]) -> None:
        """A tag that is there already changes; a long one is cut."""
        from mlflow.entities import RunTag

        tags = [RunTag(glance.clean(k), str(v)[:MAX_TAG]) for k, v in values.items()]
        self.store.log_batch(self.local_id, tags=tags)

    def describe(self, outcome: str = "") -> None:
        """Sets name and description on the tracker's page, by what the run has by now."""
        data = self.store.get_run(self.local_id).data
        outcome = outcome or glance.outcome(self.settings.data.goal.metric, data)
        name = f"{data.tags['title'][:90]}: {outcome}"
        self.store.update_run(self.local_id, name=name[:250])
        self.tags({"mlflow.note.content": glance.note(data.tags, outcome)})

    def artifacts(self, paths: list[Path], folder: str = "") -> None:
        """Copies of files, or of what folders hold; what does not exist is left out."""
        for path in filter(Path.exists, paths):
            upload(self.store, self.local_id, path, Path(folder))

    def text(self, content: str, file: str) -> None:
        """A text file; `file` is its place among the run's artifacts."""
        self.store.log_text(self.local_id, content, file)

    def mark(self) -> None:
        """The server has not got this run as it is now."""
        if self.mirrored:
            self.tags({"mirror.unsent": "true"})

    def finish(self, status: str = "FINISHED") -> None:
        """Ends the run; a later process may go on with it under its key."""
        self.store.set_terminated(self.local_id, status)
        self.mark()

    @cached_property
    def monitor(self) -> Any:
        """MLflow's thread that samples CPU, memory, disk, network and GPUs: metrics `system/*`."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        uri = self.store.tracking_uri
        monitor: Any = SystemMetricsMonitor
        return monitor(self.local_id, 5, resume_logging=True, tracking_uri=uri)

    def __enter__(self) -> "Run":
        if not self.child:
            self.monitor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        if not self.child:
            self.monitor.finish()
            # What it left: a training may be shorter than the five seconds of a sample.
            self.monitor.publish_metrics(self.monitor.aggregate_metrics())
            self.monitor.mlflow_logger.flush()
        if kind and not issubclass(kind, Exception):  # Ctrl-C
            self.describe("interrupted")
            self.finish("KILLED")
            return
        if error:
            line = logs.explain(error) or repr(error)
            self.tags({"error": line.partition("\n")[0][:1000]})
            self.describe(f"failed, {line}"[:300])
            self.text("".join(traceback.format_exception(error)), "error.txt")
        else:
            self.describe()
        self.finish("FAILED" if error else "FINISHED")
        if not self.child:
            deliver(self.settings)


def flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = flatten(value) if isinstance(value, dict) else {"": value}
        flat |= {f"{key}.{name}".removesuffix("."): v for name, v in inner.items()}
    return flat


def start(
    settings: Settings,
    name: str,
    parent: Run | None = None,
    tags: dict[str, Any] | None = None,
    key: str | None = None,
) -> Run:
    """Opens a run, below its parent where it has one; under a key that was used before, goes on
    with that run. Its name says what it is; what came of it will follow there.
    """
    store, key = connect(local_uri(settings), settings.tracking.experiment), key or new_key()
    if parent is None:
        end_abandoned(settings, store)
        warn_of_records(settings)
    entity = find_record(store, settings.tracking.experiment, key)
    run = Run(settings, store, "", key, child=parent is not None, resumed=entity is not None)
    if entity:
        store.update_run(entity.info.run_id, "RUNNING")
    else:
        home = experiment_id(store, settings.tracking.experiment)
        entity = store.create_run(home, tags={"record": key}, run_name=name)
    run.local_id = entity.info.run_id
    run.tags({"mlflow.user": user(), "host": platform.node(), "process": process(os.getpid())})
    run.tags({"title": name} | glance.source() | (tags or {}))
    run.describe()
    if parent:
        run.tags({"mlflow.parentRunId": parent.local_id, "record.parent": parent.key})
    run.mark()
    return run


def new_key() -> str:
    """What a run is known by in every store, as ids differ from store to store."""
    return uuid.uuid4().hex


def attach(settings: Settings, key: str) -> Run | None:
    """A run that was begun before, to be added to; None where the local store does not have it."""
    store = connect(local_uri(settings), settings.tracking.experiment)
    run = find_record(store, settings.tracking.experiment, key)
    return Run(settings, store, run.info.run_id, key) if run else None


def end_abandoned(settings: Settings, store: "MlflowClient") -> None:
    """Ends runs whose process on this machine is gone."""
    experiment = experiment_id(store, settings.tracking.experiment)
    query = f"status = 'RUNNING' and tags.host = '{platform.node()}'"
    for run in store.search_runs([experiment], query):
        tags = run.data.tags
        if process(int(tags["process"].split()[0])) != tags["process"]:
            Run(settings, store, run.info.run_id, tags["record"]).finish("KILLED")


def process(number: int) -> str:
    """A process by its number and the second of its start, as numbers come again."""
    with suppress(psutil.NoSuchProcess):
        return f"{number} {psutil.Process(number).create_time():.0f}"
    return "gone"


def deliver(settings: Settings, must: bool = False) -> None:
    """Copies runs to the server, where `tracking.uri` is one. Where it does not answer, a line says
    so; with `must` that is a ValueError.
    """
    if mirrored(settings):
        import_module(".mirror", __package__).deliver(settings, must)


def record_inputs(run: Run, settings: Settings) -> None:
    """Once per trained model: parameters, command, provenance, environment, uncommitted changes,
    composed configuration.
    """
    run.params(settings.model_dump(mode="json"))
    machine = environment()
    packages = installed()
    patch, left_out = uncommitted()
    record_data(run, settings)
    tags = {f"env.{name}": text for name, text in machine.items()}
    tags |= {"command": " ".join(sys.argv), "overrides": glance.overrides()}
    run.tags(tags | {"code.left_out": ", ".join(left_out) or "none"})
    run.text(packages, "environment/packages.txt")
    composed = settings.model_dump(mode="json", exclude_unset=True)  # as it was given
    run.text(yaml.safe_dump(composed, sort_keys=False, allow_unicode=True), "config/params.yaml")
    with TemporaryDirectory() as folder:
        file = Path(folder, PATCH)
        file.write_bytes(patch or b"no uncommitted changes\n")
        run.artifacts([file], "code")
    run.artifacts([Path("dvc.lock")], "config")
    # The schema is in validation.json. An exploring run reports elsewhere and finds neither.
    reports = settings.paths.reports
    run.artifacts([reports / "validation.json", reports / "data_card.md"], "data")


def record_data(run: Run, settings: Settings) -> None:
    """Code and data of a training."""
    tags = provenance_tags(settings)
    run.tags(tags | {"mlflow.source.git.commit": tags["code.commit"]})
    run.store.log_inputs(run.local_id, [glance.dataset(settings, tags)])


def remember(settings: Settings, run: Run, started: float, baselines: dict[str, Run]) -> None:
    """Which runs made the models in artifacts/model, by the tracker's ids or, where that is a
    server, by their keys; nothing depends on this file.
    """
    runs = {"network": run, **baselines}
    ids = {name: r.key if r.mirrored else r.local_id for name, r in runs.items()}
    times = {"started": started, "ended": time.time()}
    content = {"run_id": ids["network"], "record": run.key, "runs": ids, **times}
    write_json(settings.paths.reports / RUN_FILE, content)


@contextmanager
def current(settings: Settings, stage: str) -> Iterator[Run]:
    """The run that trained the model on disk, to be added to by a later stage.

    Where the stage already wrote to the run, the model is being judged again: that is a child run.
    A clone with an empty tracker gets a new run, filled from reports/ and tagged `restored`.
    """
    trained = read_json(settings.paths.reports / RUN_FILE)
    run = attach(settings, trained["record"]) or from_tracker(settings, trained)
    tags = run.store.get_run(run.local_id).data.tags
    if f"stage.{stage}" in tags:
        title = tags.get("title", run.key)  # older versions gave none
        with start(settings, f"{stage} again: {title}", run) as child:
            yield child
    else:
        run.mark()
        yield run
        run.describe()
        run.mark()
    deliver(settings)


def from_tracker(settings: Settings, trained: dict[str, Any]) -> Run:
    """The server's run, where only that has it; else a new one."""
    key = trained["record"]
    tracker = client(settings)
    run_there = find_record(tracker, settings.tracking.experiment, key)
    if run_there:
        return Run(settings, tracker, run_there.info.run_id, key)
    tags = {"restored": "true", "restored.from": trained["run_id"]}
    with start(settings, f"restored: {glance.title(settings)}", tags=tags, key=key) as run:
        record_inputs(run, settings)
        training = settings.paths.reports / "training.json"
        run.metrics(flatten(read_json(training)["metrics"]))
        run.artifacts([settings.paths.reports], "reports")
    return run

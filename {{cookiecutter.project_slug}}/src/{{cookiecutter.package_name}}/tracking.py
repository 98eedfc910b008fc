"""The record of every run. What a stage records goes to a journal on disk, and from there to MLflow
(sync.py).
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from . import logs
from .experiments import inputs
from .experiments.journal import Journal, journals, new_key
from .provenance import data_version, environment, git, read_json, sha256, user, write_json
from .settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault(
    "MLFLOW_DISABLE_TELEMETRY", "true"
)  # also where this package is used as a library
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# MLflow's own defaults keep a program waiting for eight minutes where its server is gone.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
RUN_FILE = "run.json"
# seconds that a finished training waits for its records to be delivered; they go on by themselves
PATIENCE = 20.0


def tracker_uri(uri: str) -> str:
    """A SQLite file's path made absolute: MLflow keeps stores open by the text of their address."""
    path = uri.removeprefix("sqlite:///")
    return uri if path == uri else f"sqlite:///{Path(path).resolve().as_posix()}"


def client(settings: Settings) -> "MlflowClient":
    return connect(settings.tracking.uri, settings.tracking.experiment)


def connect(address: str, experiment: str) -> "MlflowClient":
    """A client of the tracker; a new SQLite store is made by one process while others wait."""
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # no lines about tables and migrations
    uri = tracker_uri(address)
    mlflow.set_tracking_uri(uri)
    local = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
    with FileLock(f"{local}.lock") if local else nullcontext():
        made = mlflow.MlflowClient(uri)
        if made.get_experiment_by_name(experiment) is None:
            with suppress(mlflow.MlflowException):  # another client of a server was faster
                made.create_experiment(
                    experiment, Path("mlruns").resolve().as_uri() if local else None
                )
    return made


class Run:
    """One run. Recording is a local write, whether the tracker answers or not; `id` and `client`
    need the tracker.

    As a context it ends as FINISHED, FAILED or, interrupted, as KILLED.
    """

    def __init__(self, settings: Settings, journal: Journal, record: str | None = None) -> None:
        self.settings, self.journal, self.key = settings, journal, record or journal.key

    @property
    def client(self) -> "MlflowClient":
        return client(self.settings)

    @property
    def id(self) -> str:
        """The tracker's name for the run. Raises ValueError where the tracker does not answer."""
        if self.journal.delivered["run_id"] is None:
            deliver(self.settings, must=True)
        known = self.journal.delivered["run_id"]
        return known or str(
            find_record(self.client, self.settings.tracking.experiment, self.key).info.run_id
        )

    def params(self, values: dict[str, Any]) -> None:
        """Parameters; one over the tracker's limit is named in a tag and stands whole in
        config/params.yaml.
        """
        self.journal.append("params", values={k: str(v) for k, v in flatten(values).items()})

    def metrics(self, values: dict[str, float], prefix: str = "", step: int = 0) -> None:
        self.journal.metrics({f"{prefix}{k}": float(v) for k, v in values.items()}, step)

    def tags(self, values: dict[str, Any]) -> None:
        self.journal.append("tags", values={k: str(v) for k, v in values.items()})

    def artifacts(self, paths: list[Path], folder: str = "") -> None:
        """Copies of files, or of what folders hold; what does not exist is left out."""
        for path in paths:
            if path.exists():
                self.journal.file(path, folder)

    def text(self, content: str, file: str) -> None:
        self.journal.text(content, file)

    def finish(self, status: str = "FINISHED") -> None:
        self.journal.append("finish", status=status)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        self.finish("FINISHED" if kind is None else "KILLED" if interrupted else "FAILED")


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": value}
        )
    return flat


def start(
    settings: Settings,
    name: str,
    parent: Run | None = None,
    tags: dict[str, Any] | None = None,
    key: str | None = None,
) -> Run:
    """Opens a run, below its parent where it has one; under a key that was used before, goes on
    with that run.
    """
    journal = Journal(settings.paths.records / (key or new_key()))
    if journal.exists():
        journal.open("resume")
    else:
        own = {"mlflow.user": user(), **(tags or {})}
        journal.open(
            "start",
            **_target(settings),
            name=name,
            parent=parent.key if parent else None,
            tags={k: str(v) for k, v in own.items()},
        )
    return Run(settings, journal)


def _target(settings: Settings) -> dict[str, str]:
    return {"uri": settings.tracking.uri, "experiment": settings.tracking.experiment}


@contextmanager
def followed(settings: Settings, run: Run) -> Iterator[Run]:
    """The run as a context; another process delivers meanwhile, samples the machine, and ends runs
    that we leave open.

    It lives in a session of its own and learns of our end by its closed input, so it also outlives
    a kill -9 of ours.
    """
    package = __package__.partition(".")[0]
    command = [
        sys.executable,
        "-m",
        package,
        "sync",
        "--follow",
        run.key,
        f"paths.records={settings.paths.records}",
    ]
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
    )
    assert process.stdin is not None
    try:
        with run:
            yield run
    finally:
        process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.returncode = 0  # it goes on by itself, and ends by itself
        warn_of_waiting(settings)


def warn_of_waiting(settings: Settings) -> None:
    """One line where records could not be delivered yet."""
    waiting = sum(journal.waits() for journal in journals(settings.paths.records))
    if waiting:
        logs.get("sync").warning(
            "%d run(s) wait in %s: the tracker does not answer, or is still taking them; the verb `sync` delivers them",
            waiting,
            settings.paths.records,
        )


def deliver(settings: Settings, must: bool = False) -> None:
    """Delivers in this process what waits. With `must`, raises ValueError where the tracker does
    not answer.
    """
    from .experiments.sync import deliver_all

    problem = deliver_all(settings.paths.records, forget=not must)
    if problem and must:
        raise ValueError(f"the tracker at {settings.tracking.uri} does not answer: {problem}")
    if problem:
        warn_of_waiting(settings)


def provenance_tags(settings: Settings) -> dict[str, str]:
    """Code and data of a run: commit, uncommitted changes or not, hashes of the data and of each
    DVC output.
    """
    return {
        "code.commit": git("rev-parse", "--verify", "--quiet", "HEAD") or "none",
        "code.dirty": str(bool(git("status", "--porcelain"))),
        "data.version": data_version(settings),
        **_splits_tags(settings),
        **inputs.data(settings),
    }


def _splits_tags(settings: Settings) -> dict[str, str]:
    """Rows of each split, and one hash over them all: whether two runs were scored on the same
    rows.
    """
    from pyarrow.parquet import read_metadata

    files = sorted(settings.paths.splits.glob("*.parquet"))
    rows = {f"data.rows.{f.stem}": str(read_metadata(f).num_rows) for f in files}
    digest = hashlib.sha256("".join(sha256(f) for f in files).encode()).hexdigest()
    return {**rows, "data.splits": digest}


def record_inputs(run: Run, settings: Settings) -> None:
    """Once per trained model: parameters, provenance, environment, uncommitted changes, composed
    configuration.
    """
    run.params(settings.model_dump(mode="json"))
    run.tags(provenance_tags(settings))
    found = environment()
    lock = Path("requirements.lock")
    run.tags(
        {
            "env.packages_sha256": found["packages_sha256"],
            "env.python": found["python"],
            "env.hardware": found["platform"],
        }
    )
    run.tags({"env.lock_sha256": sha256(lock) if lock.is_file() else "none"})
    run.text(json.dumps(found, indent=2), "environment/environment.json")
    run.text(found["packages"], "environment/packages.txt")
    inputs.record(run)
    composed = settings.model_dump(mode="json", exclude_unset=True)  # as it was given
    run.text(yaml.safe_dump(composed, sort_keys=False, allow_unicode=True), "config/params.yaml")
    run.artifacts([Path("dvc.lock")], "config")
    # The schema is in validation.json. An exploring run reports elsewhere and finds neither.
    run.artifacts(
        [settings.paths.reports / name for name in ("validation.json", "data_card.md")], "data"
    )


def remember(settings: Settings, run: Run, started: float, baselines: dict[str, Run]) -> None:
    """Which runs made the models in artifacts/model; nothing depends on this file.

    A run that the tracker does not have yet is named by its key, which will be its tag `record`
    there.
    """
    ids = {
        name: r.journal.delivered["run_id"] or r.key
        for name, r in {"network": run, **baselines}.items()
    }
    content = {
        "run_id": ids["network"],
        "record": run.key,
        "runs": ids,
        "started": started,
        "ended": time.time(),
    }
    write_json(settings.paths.reports / RUN_FILE, content)


@contextmanager
def current(settings: Settings, stage: str) -> Iterator[Run]:
    """The run that trained the model on disk, to be added to by a later stage; delivers what was
    added.

    Where the stage already wrote to the run, the model is being judged again: that is a child run.
    A clone with an empty tracker gets a new run, filled from reports/ and tagged `restored`.
    """
    run = _current(settings, stage)
    try:
        yield run
    finally:
        run.journal.append("close")
        deliver(settings)


def _current(settings: Settings, stage: str) -> Run:
    made_by = read_json(settings.paths.reports / RUN_FILE)
    deliver(settings)
    journal = Journal(settings.paths.records / made_by["record"])
    if (
        journal.exists() and journal.waits()
    ):  # the tracker is away: these records go where the others are
        journal.open("continue")
        return Run(settings, journal)
    more = Journal(settings.paths.records / new_key())
    try:
        run = find_record(client(settings), settings.tracking.experiment, made_by["record"])
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy"):
            raise
        more.open("continue", **_target(settings), record=made_by["record"])
        return Run(settings, more, made_by["record"])
    if run is None:
        return _restore(settings, made_by)
    if f"stage.{stage}" in run.data.tags:
        return start(settings, f"{stage} again", tags={"mlflow.parentRunId": run.info.run_id})
    more.open("continue", **_target(settings), record=made_by["record"])
    return Run(settings, more, made_by["record"])


def find_record(made: "MlflowClient", experiment: str, key: str) -> Any:
    """The tracker's run that was recorded under this key, None where it has none."""
    known = made.get_experiment_by_name(experiment)
    assert known is not None
    found = made.search_runs([known.experiment_id], f"tags.record = '{key}'", max_results=1)
    return found[0] if found else None


def _restore(settings: Settings, made_by: dict[str, Any]) -> Run:
    tags = {"restored": "true", "restored.from": made_by["run_id"]}
    run = start(settings, "train (restored)", tags=tags, key=made_by["record"])
    record_inputs(run, settings)
    training = settings.paths.reports / "training.json"
    if training.is_file():
        run.metrics(flatten(read_json(training)["metrics"]))
    run.text(
        "This run was recreated from reports/, since the tracker did not know it.\n", "restored.txt"
    )
    run.artifacts([settings.paths.reports], "reports")
    run.finish()
    return run

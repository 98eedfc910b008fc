"""MLflow's stores: the one on this machine that runs are written to, and the tracker's, which may
be a server of the team's.
"""

import logging
import os
import re
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from filelock import FileLock

from . import logs
from .provenance import copy_content, read_json
from .settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # where this is used as a library
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# MLflow's own defaults keep a program waiting for eight minutes where its server is gone.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
SQLITE = "sqlite:///"
HAS_MIRROR = find_spec(f"{__package__}.mirror") is not None  # a lean project has none


def local_uri(settings: Settings) -> str:
    """The store that runs are written to: a file on this machine, unless nothing mirrors it."""
    uri = settings.tracking.uri
    return uri if uri.startswith(SQLITE) or not HAS_MIRROR else f"{SQLITE}{settings.paths.records}"


def mirrored(settings: Settings) -> bool:
    """Whether runs are recorded here and copied to the tracker, which is a server."""
    return local_uri(settings) != settings.tracking.uri


def client(settings: Settings) -> "MlflowClient":
    """Of the tracker, which has runs and models. Raises ValueError where it is away."""
    return connect(settings.tracking.uri, settings.tracking.experiment)


def connect(address: str, experiment: str) -> "MlflowClient":
    """A client; a new SQLite store is made by one process while others wait."""
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # no lines about tables and migrations
    file = Path(address.removeprefix(SQLITE)).resolve() if address.startswith(SQLITE) else None
    if file:  # absolute: MLflow keeps stores open by their address
        file.parent.mkdir(parents=True, exist_ok=True)
        address = f"{SQLITE}{file.as_posix()}"
    mlflow.set_tracking_uri(address)
    with FileLock(f"{file}.lock") if file else nullcontext():
        tracker = mlflow.MlflowClient(address)
        try:
            missing = tracker.get_experiment_by_name(experiment) is None
        except mlflow.MlflowException as error:
            if file:
                raise
            raise ValueError(away(address, error)) from error
        if missing:
            with suppress(mlflow.MlflowException):  # another client of a server was faster
                files = (file.parent / "mlruns").as_uri() if file else None
                tracker.create_experiment(experiment, files)
    return tracker


def away(address: str, error: BaseException) -> str:
    """In one line, without a password."""
    text = f"the tracker at {address} (tracking.uri) does not answer ({str(error)[:200]!r})"
    return re.sub("//[^/@ ]*@", "//", text)


def experiment_id(tracker: "MlflowClient", experiment: str) -> str:
    """MLflow's id of the experiment with this name, which `connect` has made."""
    entity = tracker.get_experiment_by_name(experiment)
    assert entity is not None
    return str(entity.experiment_id)


def find_record(tracker: "MlflowClient", experiment: str, key: str) -> Any:
    """The tracker's run that was recorded under this key, None where it has none."""
    query = f"tags.record = '{key}'"
    runs = tracker.search_runs([experiment_id(tracker, experiment)], query, max_results=1)
    return runs[0] if runs else None


def artifact_folder(run: Any) -> Path | None:
    """Where a run's files are on this machine, None where they are on another one."""
    address = urlparse(run.info.artifact_uri)
    return Path(url2pathname(address.path)) if address.scheme == "file" else None


def upload(tracker: "MlflowClient", run_id: str, path: Path, folder: Path) -> None:
    """Adds a file, or what a folder holds, to a run. MLflow copies rights as well as contents: what
    DVC links is read-only, and so would be its copy, which nothing could replace.
    """
    target = artifact_folder(tracker.get_run(run_id))
    base = path if path.is_dir() else path.parent
    for file in filter(Path.is_file, [path, *path.rglob("*")]):
        place = folder / file.relative_to(base)
        if target:
            copy_content(file, target / place)
        else:
            tracker.log_artifact(run_id, str(file), place.parent.as_posix())


def warn_of_records(settings: Settings) -> None:
    """Says what may be lost: an outage in a lean project, records of an earlier version."""
    log, folder = logs.get("tracking"), settings.paths.records.parent / "records"
    if not HAS_MIRROR and not settings.tracking.uri.startswith(SQLITE):
        log.warning("records go straight to the server: only `full` trains on while it is away")
    if any(map(is_undelivered, folder.glob("*/lines.jsonl"))):
        remedy = "check out the version of this project that wrote them, and run its verb `sync`"
        log.warning("undelivered records of an earlier version wait in %s: %s", folder, remedy)


def is_undelivered(journal: Path) -> bool:
    """Whether a run that version 0.1.0 of this project recorded was not delivered whole."""
    delivered = journal.with_name("delivered.json")
    offset = read_json(delivered)["offset"] if delivered.is_file() else 0
    return bool(journal.stat().st_size > offset)

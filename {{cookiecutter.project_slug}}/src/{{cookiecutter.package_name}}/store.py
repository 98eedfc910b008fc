"""MLflow's stores: the one on this machine that runs are written to, and the tracker's, which may
be a server of the team's.
"""

import logging
import os
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

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
    """Of the tracker, which has runs and models; raises what MLflow raises where it is away."""
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
        if tracker.get_experiment_by_name(experiment) is None:
            with suppress(mlflow.MlflowException):  # another client of a server was faster
                files = (file.parent / "mlruns").as_uri() if file else None
                tracker.create_experiment(experiment, files)
    return tracker


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

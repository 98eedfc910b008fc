"""Copies the runs of the local store to a team's MLflow server; training, evaluating and packaging
do so at their end. Cut off anywhere and repeated, it loses nothing, since a run stays marked until
all of it is there, and doubles nothing, since runs are known by their tag `record`.
"""

import argparse
import time
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Param, RunTag

from . import logs
from .settings import Settings
from .store import (
    artifact_folder,
    away,
    client,
    connect,
    experiment_id,
    find_record,
    local_uri,
    mirrored,
    upload,
)

# Tags of a local run: something was added; a copy has begun; when the last whole copy began (s).
UNSENT = "mirror.unsent"
SENDING = "mirror.sending"
SENT = "mirror.sent"
SLACK = 60.0  # seconds: a file is sent again rather than missed


def arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(settings: Settings, _: argparse.Namespace) -> int:
    with logs.stage("sync") as log:
        count = deliver(settings, must=True) if mirrored(settings) else 0
        log.info("delivered %d run(s)", count)
    return 0


def deliver(settings: Settings, must: bool = False) -> int:
    """Number of runs copied. Where the server does not answer, a line says so; with `must` that is
    a ValueError.
    """
    try:
        with FileLock(f"{settings.paths.records.resolve()}.mirror", timeout=20):
            name = settings.tracking.experiment
            return mirror(connect(local_uri(settings), name), client(settings), name)
    except Exception as error:  # whatever a server, a proxy or an object store has to say
        why = away(settings.tracking.uri, error.__cause__ or error)
        if must:
            raise ValueError(why) from error
        logs.get("sync").warning("%s: `sync` delivers later", why)
        return 0


def mirror(local: MlflowClient, server: MlflowClient, experiment: str) -> int:
    """Copies what is marked, parents first, and returns the number of runs."""
    home = experiment_id(local, experiment)
    marked = {}
    for tag in (SENDING, UNSENT):
        for run in local.search_runs([home], f"tags.`{tag}` = 'true'"):
            marked[run.info.run_id] = run.info.start_time
    for local_id in sorted(marked, key=marked.__getitem__):
        copy(local, server, experiment, local_id)
    return len(marked)


def copy(local: MlflowClient, server: MlflowClient, experiment: str, local_id: str) -> None:
    """Brings a run up to date. Its mark goes first: what is added meanwhile marks it again."""
    began = time.time()
    # This order survives a cut: there is always a mark, until the last line takes it away.
    local.set_tag(local_id, SENDING, "true")
    if UNSENT in local.get_run(local_id).data.tags:
        local.delete_tag(local_id, UNSENT)
    source = local.get_run(local_id)
    info = source.info
    tags = source.data.tags
    since = 0.0
    wanted = {name: text for name, text in tags.items() if not name.startswith("mirror.")}
    if "record.parent" in tags:
        # Parents were copied before: they began earlier.
        parent = find_record(server, experiment, tags["record.parent"])
        wanted["mlflow.parentRunId"] = parent.info.run_id if parent else ""
    target = find_record(server, experiment, tags["record"])
    # An answer may have been lost: the run can be there though we never learned its id.
    if target:
        since = float(tags.get(SENT, SLACK)) - SLACK
    else:
        home = experiment_id(server, experiment)
        target = server.create_run(home, info.start_time, wanted, info.run_name)
    target_id = target.info.run_id
    server.log_batch(target_id, tags=[RunTag(name, text) for name, text in wanted.items()])
    server.update_run(target_id, name=info.run_name)
    if source.inputs:  # known by name and hash: none comes twice
        server.log_inputs(target_id, source.inputs.dataset_inputs)
    send_values(local, server, source, target_id)
    send_files(server, source, target_id, since)
    if info.status == "RUNNING":
        return  # and stays marked
    server.set_terminated(target_id, info.status, info.end_time)
    local.set_tag(local_id, SENT, str(began))
    local.delete_tag(local_id, SENDING)


def send_values(local: MlflowClient, server: MlflowClient, source: Any, target_id: str) -> None:
    """Parameters and every value of every metric.

    MLflow keeps values of equal name, step and time once, so all of them are sent each time.
    """
    metrics = []
    for name in source.data.metrics:
        metrics += local.get_metric_history(source.info.run_id, name)
    params = [Param(name, text) for name, text in source.data.params.items()]
    server.log_batch(target_id, metrics=metrics, params=params)


def send_files(server: MlflowClient, source: Any, target_id: str, since: float) -> None:
    """Files that were written since the last whole copy began, in seconds since 1970.

    Copies keep the time of what they are copied from, but not that of their own last change.
    """
    folder = artifact_folder(source)
    assert folder is not None
    for path in folder.rglob("*"):
        if path.is_file() and max(path.stat().st_mtime, path.stat().st_ctime) >= since:
            upload(server, target_id, path, path.relative_to(folder).parent)

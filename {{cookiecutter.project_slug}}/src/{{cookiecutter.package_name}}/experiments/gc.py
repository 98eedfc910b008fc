"""Frees runs, models, data and leftovers that are old and that nobody needs; names them first.

    gc --dry-run                          name them only
    gc --keep-days 7 --keep-runs 20       instead of 30 days and 50 trainings

Kept whatever their age: runs that a registered model, the audit log or reports/ names, with all
below them; every model that was ever promoted, that a promoted one replaced or that has an alias;
data of any commit and of the workspace. DVC's remote is never touched.
"""

import argparse
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from .. import logs, tracking
from ..packaging import registry
from ..packaging.pull import CURRENT
from ..provenance import read_json
from ..settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEFTOVERS = ("compare-*", "reproduce", "routine", "csv/*/*", "tensorboard/*/*", "wandb/wandb/*")


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--keep-days", type=float, default=30, metavar="D", help="keep what is younger (30)")
    add("--keep-runs", type=int, default=50, metavar="N", help="keep the newest trainings (50)")
    add("--dry-run", action="store_true", help="name them only")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """No pipeline and no routine may run meanwhile."""
    from dvc.repo import Repo

    before = time.time() - args.keep_days * 86400
    uri = settings.tracking.uri
    with logs.stage("gc") as log, ExitStack() as locks:
        for name in ("pipeline", "routine"):
            try:
                locks.enter_context(FileLock(settings.paths.state / f"{name}.lock", timeout=0))
            except Timeout:
                raise ValueError(f"the {name} runs in this folder: wait for it to end") from None
        client = tracking.client(settings)
        models = refused_models(settings, client, before * 1000)
        runs = old_runs(settings, client, before * 1000, args.keep_runs)
        folders = [path for path in leftovers(settings) if path.stat().st_mtime < before]
        log.info("%d refused models, %d runs, %s", len(models), len(runs), [*map(str, folders)])
        if not args.dry_run:
            for version in models:
                free_model(client, version)
            for run_id in runs:
                client.delete_run(run_id)
            for path in folders:
                shutil.rmtree(path, ignore_errors=True)
            if uri.startswith("sqlite"):  # a server's runs are freed by its own `mlflow gc`
                _call("mlflow", "gc", "--tracking-uri", uri, "--older-than", f"{args.keep_days}d")
        if not Path(Repo().cache.local_cache_dir).is_relative_to(Path.cwd()):
            log.info("DVC's cache lies outside of this project and is left alone")
            return 0
        options = ["--dry"] if args.dry_run else ["--force", "--quiet"]
        return _call("dvc", "gc", "--workspace", "--all-commits", "--all-experiments", *options)


def _call(*command: str) -> int:
    return subprocess.call([sys.executable, "-m", *command])


def refused_models(settings: Settings, client: "MlflowClient", before: float) -> list[Any]:
    """Versions made before a time (ms) that were refused, and that no promotion or alias needs."""
    name = settings.tracking.registered_model
    decisions = registry.decisions(settings)
    needed = {d["previous"] for d in decisions}
    needed |= {d["version"] for d in decisions if d["action"] == "promote"}
    versions = client.search_model_versions(f"name = '{name}'")
    if versions:
        needed |= {*client.get_registered_model(name).aliases.values()}
    return [
        v
        for v in versions
        if v.tags.get("decision", "").startswith(("refuse", "cannot tell"))
        and v.creation_timestamp < before
        and not {v.version, registry.label(v)} & needed
    ]


def free_model(client: "MlflowClient", version: Any) -> None:
    """The run stays, for the audit log; the bundle's next promotion registers it anew."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    files: Any = get_artifact_repository(client.get_run(version.run_id).info.artifact_uri)
    files.delete_artifacts(f"bundles/{version.tags['identity'][:12]}")
    client.delete_model_version(version.name, version.version)
    client.delete_logged_model(version.source.removeprefix("models:/"))


def old_runs(settings: Settings, client: "MlflowClient", before: float, newest: int) -> list[str]:
    """Ids of trainings, and of what lies below them, that ended before a time (ms) and that neither
    the registry nor the audit log nor reports/ names.
    """
    experiment = tracking.experiment_id(client, settings.tracking.experiment)
    versions = client.search_model_versions(f"name = '{settings.tracking.registered_model}'")
    needed = {v.run_id for v in versions} | {d["run_id"] for d in registry.decisions(settings)}
    report = settings.paths.reports / tracking.RUN_FILE
    if report.is_file():
        needed.add(read_json(report)["record"])
    runs = client.search_runs([experiment], max_results=50_000)  # newest first
    roots = {r.info.run_id: r.data.tags.get("mlflow.parentRunId", r.info.run_id) for r in runs}
    kept = {*[root for run_id, root in roots.items() if run_id == root][:newest]}
    for run in runs:
        named = {run.info.run_id, run.data.tags.get("record")} & needed
        if named or not run.info.end_time or run.info.end_time >= before:
            kept.add(roots[run.info.run_id])
    return [run_id for run_id, root in roots.items() if root not in kept]


def leftovers(settings: Settings) -> list[Path]:
    """What ended processes left, and models that are not served."""
    current = settings.paths.live / CURRENT
    served = current.read_text(encoding="utf-8") if current.is_file() else ""
    models = [path for path in settings.paths.live.glob("*/") if path.name not in served]
    states = [path for pattern in LEFTOVERS for path in settings.paths.state.glob(pattern)]
    return [*models, *states, *Path("outputs").glob("*/*")]

"""Frees runs, models, data and leftovers that are old and that nobody needs; lists them with their
sizes first.

    gc --dry-run                          list them only
    gc --keep-days 7 --keep-runs 20       instead of 30 days and 50 trainings

Kept whatever their age: runs that a kept model, the audit log, live/ or reports/ names, with all
above and below them; every model that was ever promoted, that a promoted one replaced or that has
an alias; data of any commit, the workspace and kept runs. DVC's remote is never touched.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from .. import logs, tracking
from ..packaging import registry
from ..packaging.pull import CURRENT
from ..provenance import git, read_json
from ..settings import Settings
from ..worktree import cache

if TYPE_CHECKING:
    from mlflow import MlflowClient

LEFTOVERS = (
    "compare-*",
    "reproduce-*",
    "routine",
    "csv/*/*",
    "tensorboard/*/*",
    "wandb/wandb/*",
)  # in .state/


@dataclass
class Waste:
    """One class of what can go: its name, the bytes of each thing in it, and what removes them."""

    what: str
    sizes: list[int]
    remove: Callable[[], None]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-days", type=float, default=30, metavar="D", help="keep what is younger (30)"
    )
    parser.add_argument(
        "--keep-runs", type=int, default=50, metavar="N", help="keep the newest trainings (50)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list only")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Lists everything, then removes it class by class; no pipeline and no routine runs meanwhile."""
    if args.keep_days < 0 or args.keep_runs < 0:
        raise ValueError("--keep-days and --keep-runs cannot be below 0")
    settings.paths.state.mkdir(parents=True, exist_ok=True)
    with logs.stage("gc") as log, ExitStack() as locks:
        for name in ("pipeline", "routine"):
            try:
                locks.enter_context(FileLock(settings.paths.state / f"{name}.lock", timeout=0))
            except Timeout:
                raise ValueError(f"the {name} runs in this folder: wait for it to end") from None
        tracking.deliver(settings)
        before = time.time() - args.keep_days * 86400
        found = [waste for waste in collect(settings, before, args.keep_runs) if waste.sizes]
        for waste in found:
            log.info("can be freed: %d %s, %s", len(waste.sizes), waste.what, megabytes(waste))
        for waste in found if not args.dry_run else []:
            waste.remove()
            log.info("freed %s of %s", megabytes(waste), waste.what)
        if not found:
            log.info("nothing to free")
    return 0


def megabytes(waste: Waste) -> str:
    return f"{sum(waste.sizes) / 1e6:.1f} MB"


def collect(settings: Settings, before: float, keep_runs: int) -> Iterator[Waste]:
    """`before` is in seconds since 1970: what is younger stays."""
    made, name = tracking.client(settings), settings.tracking.registered_model
    models = made.search_model_versions(f"name = '{name}'")
    kept = [
        v for v in models if needed(v, settings, made.get_registered_model(name).aliases, before)
    ]
    yield old_models(made, [v for v in models if v not in kept], {str(v.run_id) for v in kept})
    runs, old = split_runs(settings, made, {str(v.run_id) for v in kept}, before, keep_runs)
    yield old_runs(made, old)
    hashes = {value for r in runs for tag, value in r.data.tags.items() if tag.startswith("dvc.")}
    yield files("objects in DVC's cache", unused_data(hashes))
    yield files("models in live/", untouched(old_live(settings), before))
    left = [path for pattern in LEFTOVERS for path in settings.paths.state.glob(pattern)]
    # Whatever the options say: a comparison that runs now has written within the hour.
    yield files("leftovers in .state/", untouched(left, min(before, time.time() - 3600)))
    yield files("exploring trainings in outputs/", untouched(Path("outputs").glob("*/*"), before))


def files(what: str, paths: Iterable[Path]) -> Waste:
    found = list(paths)

    def remove() -> None:
        for path in found:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.chmod(0o644)  # DVC's cache is read-only, which Windows takes at its word
                path.unlink()
        git("worktree", "prune")

    return Waste(what, [sum(p.stat().st_size for p in within(path)) for path in found], remove)


def within(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def untouched(paths: Iterable[Path], before: float) -> list[Path]:
    """Those in which nothing was written since."""
    return [p for p in paths if max(f.stat().st_mtime for f in [p, *within(p)]) < before]


def needed(version: Any, settings: Settings, aliases: dict[str, str], before: float) -> bool:
    """Whether a model has an alias, was ever promoted, was the champion at a decision, is young, or
    was never judged.

    The registry's own tag counts beside the audit log: promotions of other clones may not have come
    here yet.
    """
    refused = version.tags.get("decision", "").partition(":")[0] in ("refuse", "cannot tell")
    if not refused or str(version.version) in map(str, aliases.values()):
        return True
    decided = registry.decisions(settings)
    named = {d["previous"] for d in decided} | {
        d["version"] for d in decided if d["action"] == "promote"
    }
    return registry.label(version) in named or version.creation_timestamp >= before * 1000


def old_models(made: "MlflowClient", versions: list[Any], kept: set[str]) -> Waste:
    """Refused models: version, bundle and weights go, the run with its evaluation and promotion
    report stays.
    """
    stores = [(v, store(made.get_run(v.run_id).info.artifact_uri)) for v in versions]
    folders = {
        v.version: [f"bundles/{v.tags['identity'][:12]}"] + ["model"] * (v.run_id not in kept)
        for v in versions
    }
    # MLflow keeps the model that it loads beside the run, and names it in the version's source.
    ids = {
        v.version: v.source.removeprefix("models:/")
        for v in versions
        if v.source.startswith("models:/m-")
    }
    logged = {number: made.get_logged_model(model_id) for number, model_id in ids.items()}

    def remove() -> None:
        for version, artifacts in stores:
            for folder in folders[version.version]:
                artifacts.delete_artifacts(folder)
            if version.version in logged:
                store(logged[version.version].artifact_location).delete_artifacts()
                made.delete_logged_model(ids[version.version])
            # The bundle's next promotion registers it anew.
            made.delete_model_version(version.name, version.version)

    sizes = [
        sum(size(artifacts, folder) for folder in folders[v.version]) for v, artifacts in stores
    ]
    return Waste("models that were refused", sizes, remove)


def split_runs(
    settings: Settings, made: "MlflowClient", models: set[str], before: float, keep_runs: int
) -> tuple[list[Any], list[Any]]:
    """Runs to keep and to free. A training and all below it are kept or freed together."""
    experiment = made.get_experiment_by_name(settings.tracking.experiment)
    assert experiment is not None
    runs: list[Any] = []
    token = None
    while token is None or token:
        page = made.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        runs, token = [*runs, *page], page.token or ""
    parents = {r.info.run_id: r.data.tags.get("mlflow.parentRunId") for r in runs}
    families: dict[str, list[Any]] = {}  # newest first, as the tracker sorts them
    for one in runs:
        top = one.info.run_id
        while parents.get(top):
            top = parents[top]
        families.setdefault(top, []).append(one)
    named = models | named_runs(settings)

    def keeps(one: Any) -> bool:
        ended = one.info.end_time or one.info.start_time
        unfinished, new = one.info.status in ("RUNNING", "SCHEDULED"), ended >= before * 1000
        return unfinished or new or bool({one.info.run_id, one.data.tags.get("record")} & named)

    kept: list[Any] = []
    old: list[Any] = []
    for rank, family in enumerate(families.values()):
        (kept if rank < keep_runs or any(map(keeps, family)) else old).extend(family)
    return kept, old


def named_runs(settings: Settings) -> set[str]:
    """Ids, or keys of records, in the audit log, live/ and reports/."""
    found = {d["run_id"] for d in registry.decisions(settings)}
    for path in (settings.paths.live / CURRENT, settings.paths.reports / tracking.RUN_FILE):
        content = read_json(path) if path.is_file() else {}
        found |= {content.get("run_id"), content.get("record"), *content.get("runs", {}).values()}
        found |= {
            served["run_id"]
            for served in content.values()
            if isinstance(served, dict) and "run_id" in served
        }
    return found - {None}


def old_runs(made: "MlflowClient", runs: list[Any]) -> Waste:
    """A tracker on this machine forgets them; a server marks them as deleted, and `mlflow gc` there
    frees them.
    """
    forget = getattr(made._tracking_client.store, "_hard_delete_run", None)

    def remove() -> None:
        for one in runs:
            if forget is None:
                made.delete_run(one.info.run_id)
            else:
                store(one.info.artifact_uri).delete_artifacts()
                forget(one.info.run_id)

    note = "" if forget else " (marked as deleted: `mlflow gc` on the server frees them)"
    return Waste(f"runs{note}", [size(store(one.info.artifact_uri)) for one in runs], remove)


def store(uri: str) -> Any:
    """MLflow's access to a folder of artefacts, wherever it lies."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri)


def size(artifacts: Any, folder: str | None = None) -> int:
    """Bytes in a folder of artefacts."""
    return sum(
        size(artifacts, f.path) if f.is_dir else f.file_size or 0
        for f in artifacts.list_artifacts(folder)
    )


def old_live(settings: Settings) -> list[Path]:
    """Folders of models that are not served, but for the one that a rollback would bring back."""
    current = settings.paths.live / CURRENT
    if not current.is_file():
        return []
    served = [model["version"] for model in read_json(current).values() if model]
    before = [d["previous"] for d in registry.decisions(settings) if d["version"] in served]
    return [
        p for p in settings.paths.live.iterdir() if p.is_dir() and p.name not in {*served, *before}
    ]


def unused_data(hashes: set[str]) -> list[Path]:
    """Objects of DVC's cache that no commit, branch, tag or experiment names, nor the workspace,
    nor a kept run.

    What only runs name stands in a project of its own, for DVC to look at. A cache that others
    share is left alone.
    """
    if not Path(".dvc").is_dir() or not git("rev-parse", "--verify", "--quiet", "HEAD"):
        return []
    folder = cache(Path.cwd())
    if not folder.is_relative_to(Path.cwd().resolve()):
        logs.get("gc").info("DVC's cache lies outside of this project, in %s: left alone", folder)
        return []
    with tempfile.TemporaryDirectory() as other:
        (Path(other) / ".dvc").mkdir()
        git("init", "--quiet", other)  # DVC wants to look into the commits of both
        config = f"[core]\nanalytics = false\n[cache]\ndir = {folder}\n"
        (Path(other) / ".dvc" / "config").write_text(config, encoding="utf-8")
        for md5 in hashes:
            out = {"outs": [{"path": md5, "md5": md5, "hash": "md5"}]}
            (Path(other) / f"{md5}.dvc").write_text(yaml.safe_dump(out), encoding="utf-8")
        options = (
            "--workspace",
            "--all-commits",
            "--all-experiments",
            "--projects",
            other,
            "--dry",
            "--force",
        )
        command = [sys.executable, "-m", "dvc", "gc", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"DVC cannot tell what its cache needs: {done.stderr.strip()}")
    listed = [line.partition("Removing ")[2] for line in (done.stdout + done.stderr).splitlines()]
    return [Path(name) for name in listed if name]

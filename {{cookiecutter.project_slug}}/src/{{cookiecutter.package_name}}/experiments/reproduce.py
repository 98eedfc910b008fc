"""Rebuilds a run's code, data and configuration in a clean git worktree, trains there, and compares
the metrics.

    reproduce RUN    its id, the beginning of one, or champion, challenger, best; exit 0 equal bit for bit, 1 not

The worktree has a tracker of its own: registry, live/ and the pipeline's outputs stay as they are.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from .. import logs, tracking
from ..params import PARAMS, load
from ..provenance import dvc_hash, environment, git
from ..settings import Settings
from ..worktree import Worktree, checkout, repository, run_git
from . import records

COMPOSES = True  # what stands first is a run
EQUAL, DIFFERENT = 0, 1
CONFIG = f"config/{PARAMS}"
COMPARED = (
    "train.",
    "val.",
    "calibration.",
    "test.",
    "gate.",
)  # metrics that follow from the inputs, unlike times
DATA = Path(
    "recorded"
)  # the folder in the worktree that gets the data, so that DVC's pipeline has no say in it
OWN = {
    "model": "artifacts/model",
    "reports": "reports",
    "state": ".state",
    "records": ".state/records",
    "logs": "logs",
}
Metrics = dict[str, float]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep", action="store_true", help="leave the worktree in .state/, to look at"
    )


def run(_: Settings | None, args: argparse.Namespace) -> int:
    names = [o for o in args.overrides if "=" not in o]
    if len(names) != 1:
        raise ValueError(
            "name one run: `reproduce champion`, or the beginning of an id that `ui` shows"
        )
    settings = load([o for o in args.overrides if "=" in o])
    with logs.stage("reproduce") as log:
        original, source = find(settings, names[0])
        log.info(
            "training run %s again, of commit %s",
            original.info.run_id[:8],
            source.data.tags["code.commit"][:8],
        )
        with recorded_files(settings, source.info.run_id) as recorded:
            again = train_again(settings, original, source, recorded, args.keep)
            different, num = show(original.data.metrics, again)
            if not different:
                log.info("all %d metrics are equal, bit for bit", num)
                return EQUAL
            for line in environment_differences(recorded) or [
                "none: the training is not deterministic, see seeds"
            ]:
                log.warning("differs in the environment: %s", line)
        log.warning("%d of %d metrics differ", different, num)
    return DIFFERENT


def find(settings: Settings, name: str) -> tuple[Any, Any]:
    """The run, and the one that holds its inputs: a baseline's are those of the training it was in.

    A later judgement of a model stands for the training of it. Raises ValueError where the run
    cannot be had again.
    """
    made, named = tracking.client(settings), records.find(settings, name)
    above = named.data.tags.get("mlflow.parentRunId")
    runs = [named, *([made.get_run(above)] if above else [])]
    files = {
        r.info.run_id: {f.path for f in made.list_artifacts(r.info.run_id, "config")} for r in runs
    }
    source = next(
        (r for r in runs if CONFIG in files[r.info.run_id] and r.data.tags.get("candidate")), None
    )
    short = f"run {named.info.run_id[:8]} ({named.info.run_name})"
    if source is None or "restored" in source.data.tags:
        raise ValueError(f"{short} cannot be reproduced: only trainings record all of their inputs")
    original = named if "candidate" in named.data.tags else source
    if original.info.status != "FINISHED":
        raise ValueError(
            f"{short} cannot be reproduced: it is {original.info.status}, and only a finished run can"
        )
    commit = source.data.tags.get("code.commit", "none")
    if commit == "none":
        raise ValueError(
            f"{short} cannot be reproduced: there was no git commit yet when it was made"
        )
    if not git("rev-parse", "--verify", "--quiet", commit + "^{commit}"):
        raise ValueError(
            f"commit {commit[:8]} of {short} is not in this repository: try `git fetch --all`"
        )
    return original, source


@contextmanager
def recorded_files(settings: Settings, run_id: str) -> Iterator[Path]:
    """A folder with what the run recorded of code, configuration and environment."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("code", "config", "environment"):
            tracking.client(settings).download_artifacts(run_id, name, folder)
        yield Path(folder)


def train_again(
    settings: Settings, original: Any, source: Any, recorded: Path, keep: bool
) -> Metrics:
    """Metrics of the same candidate, trained, and where the run was evaluated also evaluated, in a
    new worktree.
    """
    inside, tags = repository(), source.data.tags
    settings.paths.state.mkdir(parents=True, exist_ok=True)
    parent = Path(tempfile.mkdtemp(prefix="reproduce-", dir=settings.paths.state))
    config = yaml.safe_load((recorded / CONFIG).read_text(encoding="utf-8"))
    package, verbs = config["project"]["package"], [["train", "--pipeline"], ["evaluate"]]
    try:
        with checkout(parent, source.info.run_id[:8], tags["code.commit"], keep) as folder:
            time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            tree = Worktree(settings, Path.cwd(), folder / inside, time, "reproduce")
            changes = (recorded / "code" / tracking.PATCH).resolve()
            if changes.read_bytes().startswith(b"diff "):
                run_git("apply", "--whitespace=nowarn", str(changes), cwd=folder)
            bring_data(tree, {name: config["paths"][name] for name in ("raw", "splits")}, tags)
            write_params(tree, config)
            for verb in verbs:
                if verb[0] != "evaluate" or "stage.evaluate" in original.data.tags:
                    tree.call(package, *verb)
            if keep:
                logs.get("reproduce").info(
                    "kept %s; `git worktree remove --force` removes it", tree.project
                )
            return metrics(tree, config["tracking"]["experiment"], original.data.tags["candidate"])
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def bring_data(tree: Worktree, paths: dict[str, str], tags: dict[str, str]) -> None:
    """Checks data out of DVC's cache, or pulls it, by the hashes that the run recorded; and
    verifies it.
    """
    tree.share_cache()
    folder = tree.project / DATA
    folder.mkdir()
    hashes = {
        name: tags.get(f"dvc.{Path(path).as_posix()}", "none recorded")
        for name, path in paths.items()
    }
    for name, md5 in hashes.items():
        content = yaml.safe_dump({"outs": [{"path": name, "md5": md5, "hash": "md5"}]})
        (folder / f"{name}.dvc").write_text(content, encoding="utf-8")
    files = [f"{DATA}/{name}.dvc" for name in hashes]
    if tree.call("dvc", "checkout", *files, accepted=(0, 1, 255)):
        tree.call("dvc", "pull", *files, accepted=(0, 1, 255))
    for name, md5 in hashes.items():
        if not (folder / name).is_dir() or dvc_hash(folder / name) != md5:
            raise ValueError(
                f"{paths[name]} of that run (DVC hash {md5}) is in neither the cache nor the remote, or damaged there: "
                "`dvc push` it from where it was made; what `make pipeline` trains on is in the cache"
            )


def write_params(tree: Worktree, config: dict[str, Any]) -> None:
    """The run's composed configuration, with paths and tracker inside of the worktree."""
    config["paths"] |= OWN | {name: f"{DATA}/{name}" for name in ("raw", "splits")}
    config["tracking"]["uri"], config["logger"] = "sqlite:///mlflow.db", {}
    (tree.project / PARAMS).write_text(
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def metrics(tree: Worktree, experiment: str, candidate: str) -> Metrics:
    """What the candidate's new run recorded."""
    made = tracking.connect(f"sqlite:///{tree.project / 'mlflow.db'}", experiment)
    known = made.get_experiment_by_name(experiment)
    assert known is not None
    found = made.search_runs([known.experiment_id], f"tags.candidate = '{candidate}'")
    if len(found) != 1:
        raise ValueError(f"training again recorded {len(found)} runs of the {candidate}, not one")
    return dict(found[0].data.metrics)


def show(recorded: Metrics, again: Metrics) -> tuple[int, int]:
    """The table on the terminal; how many metrics differ, and of how many."""
    from rich.console import Console
    from rich.table import Table

    names, different = sorted(name for name in recorded if name.startswith(COMPARED)), 0
    if not names:
        raise ValueError("the run recorded no metric to compare")
    table = Table("metric", "recorded", "again", "difference")
    for name in names:
        old, new = recorded[name], again.get(name, math.nan)
        same = old == new or (math.isnan(old) and name in again and math.isnan(new))
        different += not same
        table.add_row(
            name,
            repr(old),
            repr(new),
            "0" if same else f"{new - old:+.3g}",
            style="" if same else "red",
        )
    Console().print(table)
    return different, len(names)


def environment_differences(recorded: Path) -> list[str]:
    """What is not as it was, package by package: the likely cause of other metrics."""
    before, now = (
        json.loads((recorded / "environment/environment.json").read_text(encoding="utf-8")),
        environment(),
    )

    def parts(found: dict[str, str]) -> dict[str, str]:
        packages = dict(line.split("==", 1) for line in found["packages"].splitlines())
        return {**packages, **{name: found[name] for name in ("python", "platform", "processor")}}

    old, new = parts(before), parts(now)
    return [
        f"{k} {old.get(k, 'none')} -> {new.get(k, 'none')}"
        for k in sorted(old | new)
        if old.get(k) != new.get(k)
    ]

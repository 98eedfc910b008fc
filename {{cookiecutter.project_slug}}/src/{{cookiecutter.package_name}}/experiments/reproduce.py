"""Rebuilds a run's code, data and configuration in a clean git worktree, trains there, and compares
the metrics.

    reproduce RUN    its id, the beginning of one, or champion, challenger, best

Exit 0: all metrics are equal, bit for bit; 1: not.

The worktree has a tracker of its own: registry, live/ and the pipeline's outputs stay as they are.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from .. import logs, tracking
from ..params import PARAMS, load
from ..provenance import UNKNOWN, git, read_json
from ..settings import Settings
from ..worktree import Worktree, checkout
from .compare import Record, differences, find_run, read

COMPOSES = True  # what stands first is a run
EQUAL = 0
DIFFERENT = 1
# In the record of a run.
CONFIG = "config/params.yaml"
PATCH = "code/uncommitted.diff"
# Metrics that follow from the inputs, unlike times.
COMPARED = ("train.", "val.", "calibration.", "test.", "gate.")


def arguments(parser: argparse.ArgumentParser) -> None:
    text = "leave the worktree in .state/, to look at"
    parser.add_argument("--keep", action="store_true", help=text)


def run(_: Settings | None, args: argparse.Namespace) -> int:
    import pandas as pd

    if len(args.overrides) != 1:
        raise ValueError("name one run: `reproduce champion`, or the beginning of an id in `ui`")
    settings = load()
    name = args.overrides[0]
    with logs.stage("reproduce") as log:
        training = find(settings, name)
        recorded = read(settings, name)
        commit = training.data.tags["code.commit"]
        log.info("training %s again, of commit %s", recorded.name, commit[:8])
        with checkout(settings, "reproduce", commit, args.keep) as tree:
            again = train_again(tree, training, recorded)
        if not count_differences(recorded.metrics, again.metrics):
            log.info("all metrics are equal, bit for bit")
            return EQUAL
        inputs = pd.DataFrame([recorded.inputs, again.inputs]).fillna("none")
        log.warning("metrics differ; so do:\n%s", differences(inputs, ["a", "b"]).to_string())
    return DIFFERENT


def find(settings: Settings, name: str) -> Any:
    """The training that a run was in, which holds its inputs. Raises ValueError where those are
    not whole.
    """
    run = find_run(settings, name)
    parent = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    training = tracking.client(settings).get_run(parent)
    tags = training.data.tags
    status = training.info.status
    commit = tags.get("code.commit", "none")
    is_shallow = git("rev-parse", "--is-shallow-repository") == "true"
    missing = "--unshallow" if is_shallow else "--all"
    problems = {
        "only trainings record all of their inputs": "candidate" not in tags or "restored" in tags,
        f"it is {status}, and only a finished run can": status != "FINISHED",
        "git could not say of which commit it was": commit in ("none", UNKNOWN),
        f"its commit {commit[:8]} is not in this repository: try `git fetch {missing}`": not git(
            "rev-parse", "--verify", "--quiet", f"{commit}^0"
        ),
    }
    for problem, applies in problems.items():
        if applies:
            raise ValueError(f"run {name} cannot be reproduced: {problem}")
    return training


def train_again(tree: Worktree, training: Any, recorded: Record) -> Record:
    """The same candidate, trained on what the training recorded, and where it was evaluated also
    evaluated. Raises ValueError where DVC does not have the data.
    """
    client = tracking.client(tree.settings)
    settings = tree.settings
    tags = training.data.tags
    patch, config = (client.download_artifacts(training.info.run_id, p) for p in (PATCH, CONFIG))
    params = tree.project / PARAMS
    paths = settings.paths
    values = yaml.safe_load(Path(config).read_text("utf-8"))
    values["paths"] = yaml.safe_load(params.read_text("utf-8"))["paths"]
    values["tracking"]["uri"] = f"sqlite:///{tree.project}/mlflow.db"
    git("apply", "--allow-empty", "--whitespace=nowarn", patch, folder=tree.project)
    params.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
    data = [str(paths.raw), str(paths.splits)]
    lock = (tree.project / "dvc.lock").read_text("utf-8")
    if not all(tags[f"dvc.{path}"] in lock for path in data):
        raise ValueError("that run's data was not what its dvc.lock says: it is lost")
    if tree.call("dvc", "checkout", *data, accepted=(0, 1, 255)):
        tree.call("dvc", "pull", *data)
    tree.call(settings.project.package, "train", "--pipeline")
    if any(name.startswith("test.") for name in recorded.metrics):
        tree.call(settings.project.package, "evaluate")
    runs = read_json(tree.project / paths.reports / tracking.RUN_FILE)["runs"]
    again = settings.changed("tracking", uri=values["tracking"]["uri"])
    return read(again, runs[recorded.inputs["candidate"]])


def count_differences(recorded: dict[str, float], again: dict[str, float]) -> int:
    """Prints every metric beside the recorded one, in full: not-a-number equals itself."""
    names = [name for name in sorted(recorded) if name.startswith(COMPARED)]
    if not names:
        raise ValueError("the run recorded no metric to compare")
    different = [name for name in names if repr(recorded[name]) != repr(again.get(name))]
    for name in names:
        sign = "≠" if name in different else "="
        print(f"{name:30} {recorded[name]!r:>24} {sign} {again.get(name)!r}")
    return len(different)

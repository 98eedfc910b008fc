"""The record of every run, in MLflow: the only module that talks to the tracker."""

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from ..params import PARAMS
from ..provenance import data_version, environment, git, read_json, sha256, write_json
from ..settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # also where this package is used as a library
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
RUN_FILE = "run.json"


def tracker_uri(settings: Settings) -> str:
    """`tracking.uri` with a SQLite file's path made absolute: MLflow keeps stores open by the text of their address."""
    path = settings.tracking.uri.removeprefix("sqlite:///")
    return settings.tracking.uri if path == settings.tracking.uri else f"sqlite:///{Path(path).resolve().as_posix()}"


def client(settings: Settings) -> "MlflowClient":
    """A client of the tracker in `tracking.uri`; a new SQLite store is made by one process while others wait."""
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # no lines about tables and migrations
    uri = tracker_uri(settings)
    mlflow.set_tracking_uri(uri)
    local = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
    with FileLock(f"{local}.lock") if local else nullcontext():
        made = mlflow.MlflowClient(uri)
        if made.get_experiment_by_name(settings.tracking.experiment) is None:
            made.create_experiment(settings.tracking.experiment, Path("mlruns").resolve().as_uri() if local else None)
    return made


@dataclass(frozen=True)
class Run:
    """One run in the tracker, open or closed: MLflow takes records for both."""

    client: "MlflowClient"
    id: str

    def params(self, values: dict[str, Any]) -> None:
        """Parameters, once; a value over MLflow's limit is named in a tag and stands whole in config/params.yaml."""
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

        items = [(k, str(v)) for k, v in flatten(values).items()]
        cut = [k for k, v in items if len(v) > MAX_PARAM_VAL_LENGTH]
        if cut:
            self.tags({"params.in_config_only": ", ".join(cut)})
        kept = [Param(k, v) for k, v in items if k not in cut]
        for start in range(0, len(kept), 100):
            self.client.log_batch(self.id, params=kept[start : start + 100])

    def metrics(self, values: dict[str, float], prefix: str = "") -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(f"{prefix}{k}", float(v), now, 0) for k, v in values.items()])

    def tags(self, values: dict[str, Any]) -> None:
        for key, value in values.items():
            self.client.set_tag(self.id, key, str(value))

    def artifacts(self, paths: list[Path], folder: str | None = None) -> None:
        """Files or folders that exist; others are left out."""
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(self.id, str(path), folder)
            elif path.is_file():
                self.client.log_artifact(self.id, str(path), folder)

    def text(self, content: str, file: str) -> None:
        self.client.log_text(self.id, content, file)

    def finish(self, status: str = "FINISHED") -> None:
        self.client.set_terminated(self.id, status)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def start(settings: Settings, name: str, parent: str | None = None, tags: dict[str, Any] | None = None) -> Run:
    """Opens a run of its own; with a parent it is shown below that one."""
    made = client(settings)
    experiment = made.get_experiment_by_name(settings.tracking.experiment)
    assert experiment is not None
    nested = {"mlflow.parentRunId": parent} if parent else {}
    run = made.create_run(
        experiment.experiment_id, run_name=name, tags={**nested, **{k: str(v) for k, v in (tags or {}).items()}}
    )
    return Run(made, run.info.run_id)


def provenance_tags(settings: Settings) -> dict[str, str]:
    """Code and data of a run: commit, uncommitted changes or not, hashes of the data and of each DVC output."""
    tags = {
        "code.commit": git("rev-parse", "--verify", "--quiet", "HEAD") or "none",
        "code.dirty": str(bool(git("status", "--porcelain"))),
        "data.version": data_version(settings),
        **_splits_tags(settings),
    }
    lock = Path("dvc.lock")
    if lock.is_file():
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].values()
        tags |= {
            f"dvc.{out['path']}": out["md5"]
            for s in stages
            for out in s.get("outs", [])
            if out["path"].startswith("data/")
        }
    return tags


def _splits_tags(settings: Settings) -> dict[str, str]:
    """Rows of each split, and one hash over them all: whether two runs were scored on the same rows."""
    from pyarrow.parquet import read_metadata

    files = sorted(settings.paths.splits.glob("*.parquet"))
    rows = {f"data.rows.{f.stem}": str(read_metadata(f).num_rows) for f in files}
    digest = hashlib.sha256("".join(sha256(f) for f in files).encode()).hexdigest()
    return {**rows, "data.splits": digest}


def record_inputs(run: Run, settings: Settings) -> None:
    """Once per trained model: parameters, provenance, environment, uncommitted changes, composed configuration."""
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
    run.tags({"env.lock_sha256": sha256(lock) if lock.is_file() else "none", "command": " ".join(sys.argv)})
    run.text(json.dumps(found, indent=2), "environment/environment.json")
    run.text(found["packages"], "environment/packages.txt")
    run.text(git("diff", "HEAD") or "no uncommitted changes\n", "code/uncommitted.diff")
    run.artifacts([PARAMS, Path("dvc.lock")], "config")
    # The schema is in validation.json. An exploring run reports elsewhere and finds neither.
    run.artifacts([settings.paths.reports / name for name in ("validation.json", "data_card.md")], "data")


def remember(settings: Settings, run: Run, started: float, baselines: dict[str, str]) -> None:
    """Which runs made the models in artifacts/model; nothing depends on this file."""
    runs = {"network": run.id, **baselines}
    write_json(
        settings.paths.reports / RUN_FILE, {"run_id": run.id, "runs": runs, "started": started, "ended": time.time()}
    )


def current(settings: Settings, stage: str) -> Run:
    """The run that trained the model on disk.

    A clone with an empty tracker gets a new run, filled from reports/ and tagged `restored`. Where the stage already
    wrote to the run, the model is being judged again: that is a child run.
    """
    made = client(settings)
    path = settings.paths.reports / RUN_FILE
    run_id = read_json(path)["run_id"]
    try:
        tags = made.get_run(run_id).data.tags
    except Exception as error:  # MLflow raises its own type here, and importing it costs a second
        if type(error).__name__ != "MlflowException":
            raise
        return _restore(settings, run_id)
    if f"stage.{stage}" in tags:
        return start(settings, f"{stage} again", parent=run_id)
    return Run(made, run_id)


def _restore(settings: Settings, lost: str) -> Run:
    made = client(settings)
    experiment = made.get_experiment_by_name(settings.tracking.experiment)
    assert experiment is not None
    found = made.search_runs([experiment.experiment_id], f"tags.`restored.from` = '{lost}'", max_results=1)
    if found:
        return Run(made, found[0].info.run_id)
    run = start(settings, "train (restored)", tags={"restored": "true", "restored.from": lost})
    record_inputs(run, settings)
    training = settings.paths.reports / "training.json"
    if training.is_file():
        run.metrics(flatten(read_json(training)["metrics"]))
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "restored.txt"
        note.write_text("This run was recreated from reports/, since the tracker did not know it.\n", encoding="utf-8")
        run.artifacts([note])
    run.artifacts([settings.paths.reports], "reports")
    run.finish()
    return run

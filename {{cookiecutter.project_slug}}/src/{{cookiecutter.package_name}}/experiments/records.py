"""A run of the tracker as plain data, for comparing: what went in, what came out, and its loss on
every test row.
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tracking
from ..packaging import registry
from ..settings import Settings

if TYPE_CHECKING:
    import pandas as pd

ALIASES = (registry.CHAMPION, registry.CHALLENGER, registry.BEST)


@dataclass(frozen=True)
class Record:
    """One run. `model` is the candidate that it stands for; `losses` has a row per test row, with
    its key columns and a column per candidate, in squared label scales; None where the run was not
    evaluated.
    """

    id: str
    name: str
    model: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    packages: dict[str, str]
    losses: "pd.DataFrame | None"
    scale: float


def find(settings: Settings, name: str) -> Any:
    """The tracker's run for an id, the beginning of one, or an alias. Raises ValueError where that
    is not one run.
    """
    made = tracking.client(settings)
    if name in ALIASES:
        version = registry.by_alias(settings, name)
        if version is None or version.run_id is None:
            raise ValueError(f"no model is {name} yet: run `make pipeline`")
        return made.get_run(version.run_id)
    experiment = made.get_experiment_by_name(settings.tracking.experiment)
    assert experiment is not None
    if not name.isalnum():
        raise ValueError(
            f"{name!r} is not a run: give its id or the beginning of it, as `ui` shows it"
        )
    found = made.search_runs(
        [experiment.experiment_id], f"attributes.run_id LIKE '{name}%'", max_results=2
    )
    if len(found) != 1:
        what = "no run begins" if not found else "more than one run begins"
        raise ValueError(f"{what} with {name!r}: `ui` shows the runs and their ids")
    return found[0]


def read(settings: Settings, name: str) -> Record:
    """A run with what it inherits: a baseline's run has its inputs and test losses from the
    training that it was in.
    """
    import pandas as pd

    run, made = find(settings, name), tracking.client(settings)
    above = run.data.tags.get("mlflow.parentRunId")
    parent = made.get_run(above) if above else run
    with tempfile.TemporaryDirectory() as folder:

        def file(path: str) -> Path | None:
            for owner in (run, parent):
                if any(
                    f.path == path
                    for f in made.list_artifacts(owner.info.run_id, path.rpartition("/")[0])
                ):
                    return Path(made.download_artifacts(owner.info.run_id, path, folder))
            return None

        evaluation, losses = file("evaluation/evaluation.json"), file("evaluation/losses.parquet")
        packages, changes = file("environment/packages.txt"), file("code/uncommitted.diff")
        judged = json.loads(evaluation.read_text(encoding="utf-8")) if evaluation else {}
        tags = {
            k: v
            for k, v in {**parent.data.tags, **run.data.tags}.items()
            if not k.startswith("mlflow.")
        }
        if changes:
            tags["code.uncommitted"] = hashlib.sha256(changes.read_bytes()).hexdigest()[:12]
        lines = packages.read_text(encoding="utf-8").splitlines() if packages else []
        baseline = run.data.tags.get("candidate") if above else None
        return Record(
            run.info.run_id,
            run.info.run_name,
            baseline or judged.get("candidate") or tags.get("candidate", "network"),
            {**parent.data.params, **run.data.params},
            tags,
            dict(run.data.metrics),
            dict(line.split("==", 1) for line in lines),
            pd.read_parquet(losses) if losses else None,
            judged.get("label_scale", 1.0),
        )

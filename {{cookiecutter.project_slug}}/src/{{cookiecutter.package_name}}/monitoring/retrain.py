"""Retraining: labelled predictions become a new data version, which goes through the pipeline and
its gates.

All of it happens in a git worktree and ends as a commit on the branch routine/<time>, to review and
merge.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs
from ..provenance import git, read_json, write_json
from ..serving.store import recent
from ..settings import Data, Settings
from ..worktree import Worktree, checkout

if TYPE_CHECKING:
    import pandas as pd

WORDS = {
    0: "promoted",
    3: "refused by the gates",
    4: "cannot tell: the gates have too little to decide on",
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code, words, and the branch that holds what it made."""

    code: int
    words: str
    error: str | None = None
    branch: str | None = None


def retrain(settings: Settings, reasons: list[str], again: bool = False) -> Outcome:
    """Trains on the labelled predictions and lets the gates decide. Raises ValueError."""
    needed = settings.monitoring.retrain_min_labels
    labelled = len(recent(settings.paths.store, needed, labelled=True))
    if labelled < needed:
        return _too_few(labelled, needed)
    with checkout(settings, "routine") as tree:
        tree.prepare()
        rows = new_rows(settings, tree.feedback)
        if len(rows) < needed:
            return _too_few(len(rows), needed)
        tried, refused = settings.paths.state / "routine-refused.json", _fingerprint(rows)
        if not again and tried.is_file() and read_json(tried) == refused:
            return Outcome(3, "refused before: neither labels nor project changed since")
        code = run_pipeline(tree, rows, reasons)
        if code == 3:
            write_json(tried, refused)
    return Outcome(
        code,
        f"{WORDS[code]}, after training with {len(rows)} labelled predictions more",
        branch=tree.branch,
    )


def _too_few(found: int, needed: int) -> Outcome:
    words = f"cannot tell: {found} new labelled predictions, a retraining needs {needed} (labels come through /feedback)"
    return Outcome(4, words)


def _fingerprint(rows: "pd.DataFrame") -> dict[str, str]:
    ids = "\n".join(sorted(rows["id"]))
    return {"commit": git("rev-parse", "HEAD"), "rows": hashlib.sha256(ids.encode()).hexdigest()}


def new_rows(settings: Settings, feedback: Path) -> "pd.DataFrame":
    """Raw rows (id, features, label) of labelled predictions whose id and content are in no data
    version yet.

    Equal inputs count once, and not at all where people disagree about their label. Near-duplicates
    of known rows, and of one another, stay out: their hashes would put them into other splits, and
    `split` would refuse that leak.
    """
    import pandas as pd

    from ..data.ingest import content_hash, feedback_rows, read
    from ..task.features import Features, Instance, check_instance, instance_to_row
    from ..task.schema import near_key

    stored = recent(settings.paths.store, settings.serving.store_rows, labelled=True)
    known = pd.concat([read(settings), *feedback_rows(feedback)], ignore_index=True)
    known_content = set(content_hash(known))
    features, found = Features.model_validate(settings.data.features), []
    for item in stored:
        try:
            instance = Instance.model_validate(item["instance"])
            check_instance(instance, features)
        except (
            ValueError
        ):  # it was allowed when it was asked: validation would stop the pipeline at it
            continue
        if is_label(item["feedback"], settings.data):
            found.append(
                {
                    "id": item["prediction_id"],
                    **instance_to_row(instance),
                    "label": item["feedback"],
                }
            )
    columns = known.columns.drop("content")
    rows = pd.DataFrame(found, columns=columns).astype(
        known.dtypes[columns]
    )  # an item may leave columns out
    if rows.empty:
        return rows
    content = content_hash(rows)
    agreed = rows["label"].groupby(content).transform("nunique") == 1
    fresh = (
        ~content.isin(known_content) & ~rows["id"].isin(set(known["id"])) & ~content.duplicated()
    )
    near = near_key(rows, settings.data).astype(str)
    apart = (
        ~near.isin(set(near_key(known, settings.data).astype(str)))
        & ~near.where(agreed & fresh).duplicated()
    )
    return rows[agreed & fresh & apart].reset_index(drop=True)


def is_label(given: Any, data: Data) -> bool:
    """Whether a feedback can be a label of the data: one of its classes, or a finite number."""
    if data.kind == "regression":
        return isinstance(given, float) and math.isfinite(given)
    return given in data.labels


def run_pipeline(tree: Worktree, rows: "pd.DataFrame", reasons: list[str]) -> int:
    """Adds the rows, runs the pipeline, commits, promotes and pulls; returns the exit code of
    promote.
    """
    log = logs.get("routine")
    log.info("training with %d labelled predictions more, in %s", len(rows), tree.project)
    tree.add_feedback(rows)
    tree.call("dvc", "repro")
    # Before promote: the audit record and the registry name a commit that stays.
    tree.commit(f"Retrain with {len(rows)} labelled predictions\n\n" + "\n".join(reasons))
    package, shared = tree.settings.project.package, tree.shared_paths()
    log.info("trained and committed on %s; now the gates decide", tree.branch)
    code = tree.call(package, "promote", *shared, accepted=tuple(WORDS))
    if code == 0:
        tree.call(package, "pull", *shared)
    return code

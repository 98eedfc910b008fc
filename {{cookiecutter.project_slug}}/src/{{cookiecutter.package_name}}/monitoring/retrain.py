"""Retraining: labelled predictions become a new data version, which goes through the pipeline and
its gates.

All of it happens in a git worktree and ends as a commit on the branch routine/<time>, to review and
merge.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs
from ..modeling import kinds
from ..provenance import git, read_json, write_json
from ..serving.store import models, recent
from ..settings import Settings
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
    labelled = len(labelled_predictions(settings))
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
    words = f"{WORDS[code]}, after training with {len(rows)} labelled predictions more"
    return Outcome(code, words, branch=tree.branch)


def _too_few(count: int, needed: int) -> Outcome:
    words = f"cannot tell: {count} new labelled predictions, a retraining needs {needed}"
    return Outcome(4, f"{words} (labels come through /feedback)")


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
    from ..task.schema import near_key

    known = pd.concat([read(settings), *feedback_rows(feedback)], ignore_index=True)
    columns = known.columns.drop("content")
    # An item may leave columns out.
    rows = pd.DataFrame(labelled_rows(settings), columns=columns).astype(known.dtypes[columns])
    if rows.empty:
        return rows
    content, near = content_hash(rows), near_key(rows, settings.data).astype(str)
    disputed = rows["label"].groupby(content).transform("nunique") > 1
    old = rows["id"].isin(known["id"]) | content.isin(content_hash(known))
    rows = rows[~disputed & ~old & ~content.duplicated()]
    near = near[rows.index]
    alike = near.isin(near_key(known, settings.data).astype(str)) | near.duplicated()
    return rows[~alike].reset_index(drop=True)


def labelled_predictions(settings: Settings) -> list[dict[str, Any]]:
    """Stored predictions with feedback, but for those of a model of other data: a picture or a
    class there may look like one of these.
    """
    store, data = settings.paths.store, settings.data
    asked = {name: (model["task"], model["kind"]) for name, model in models(store).items()}
    present = (data.name, data.kind)
    items = recent(store, settings.serving.store_rows, labelled=True)
    return [item for item in items if asked.get(item["identity"], present) == present]


def labelled_rows(settings: Settings) -> list[dict[str, Any]]:
    """Stored predictions with feedback as raw rows. What the settings allow no more stays out:
    validation would stop the pipeline at it.
    """
    from ..task.features import Features, Instance, check_instance, instance_to_row

    data, rows = settings.data, []
    features, kind = Features.model_validate(data.features), kinds.of(data.kind)
    for item in labelled_predictions(settings):
        try:
            instance = Instance.model_validate(item["instance"])
            check_instance(instance, features)
            label = kind.check_label(item["feedback"], data.labels)
        except ValueError:
            continue
        row = instance_to_row(instance)
        rows.append({"id": item["prediction_id"], **row, "label": label})
    return rows


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

"""The task's own rows under each kind of task, so that what serves and watches a model is tested
for all of them.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import module
from numpy.typing import NDArray

KINDS = module("modeling.kinds").installed()  # an image project has no values
LABELS: dict[str, list[str]] = {
    "multiclass": ["low", "middle", "high"],
    "binary": ["no", "yes"],
    "regression": [],
}
every_kind = pytest.mark.parametrize("kind", KINDS, indirect=True)


def having(*kinds: str) -> pytest.MarkDecorator:
    """Runs a test for those of the kinds that this project has."""
    return pytest.mark.parametrize("kind", [kind for kind in kinds if kind in KINDS])


def as_kind(raw: dict[str, Any], kind: str) -> dict[str, Any]:
    """The composed settings for another kind; unchanged for the task's own."""
    data = raw["data"]
    if kind == data["kind"]:
        return raw
    goal = {"metric": "r2" if kind == "regression" else "accuracy", "at_least": 0.1, "costs": None}
    data = {**data, "kind": kind, "labels": LABELS[kind], "goal": {**data["goal"], **goal}}
    return {**raw, "data": data}


def relabel(label: pd.Series, raw: dict[str, Any], kind: str) -> pd.Series:
    """Labels of another kind that follow from the task's own [n], with noise that makes them all
    different.
    """
    data = raw["data"]
    if kind == data["kind"]:
        return label
    number = label.map(data["labels"].index) if data["labels"] else label
    noise = np.random.default_rng(0).normal(0, 0.2, len(number))
    scaled = ((number - number.mean()) / number.std()).to_numpy(np.float64) + noise
    if kind == "regression":
        return pd.Series(100 + 25 * scaled, label.index)
    names = np.array(LABELS[kind])
    edges = np.quantile(scaled, np.arange(1, len(names)) / len(names))
    return pd.Series(names[np.searchsorted(edges, scaled)], label.index, dtype=str)


def targets(label: pd.Series, labels: list[str]) -> NDArray[np.float64]:
    """What a linear model learns: logits [n, k] that name the class, or the values [n, 1]."""
    if not labels:
        return np.array(label, dtype=np.float64)[:, None]
    return 8.0 * np.array([[given == name for name in labels] for given in label], dtype=np.float64)

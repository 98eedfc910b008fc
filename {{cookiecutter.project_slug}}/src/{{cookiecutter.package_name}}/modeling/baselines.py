"""What a network has to beat (M2): a constant, a person's rule, and the simplest learned model of
the task.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..settings import Kind
from ..task.baselines import Heuristic
from ..types import Inputs
from . import kinds


class Constant:
    """Always answers the same: the classes' shares in the training data, or the mean value."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def fit(self, inputs: Inputs, label: NDArray[Any]) -> "Constant":
        self.raw = kinds.of(self.kind).constant(label)
        return self

    def predict(self, inputs: Inputs) -> NDArray[np.floating]:
        """Raw outputs [n, k] or [n, 1]."""
        return np.tile(self.raw, (len(next(iter(inputs.values()))), 1))


def flat(inputs: Inputs) -> NDArray[np.float32]:
    """All inputs side by side as one matrix [n, d], in the order of their names."""
    return np.concatenate(
        [inputs[name].reshape(len(inputs[name]), -1) for name in sorted(inputs)], axis=1
    ).astype(np.float32)


def with_all_classes(
    inputs: Inputs, label: NDArray[Any], labels: list[str]
) -> tuple[Inputs, NDArray[Any]]:
    """The rows, and for each class that has none, one of average inputs: a classifier that never
    saw a class would have no output for it. Values have no `labels`.
    """
    absent = np.setdiff1d(np.arange(len(labels)), label)
    if not len(absent):
        return inputs, label
    rows = {
        name: np.concatenate([values, np.stack([values.mean(axis=0)] * len(absent))])
        for name, values in inputs.items()
    }
    return rows, np.concatenate([label, absent])


def simple_baselines(kind: Kind) -> dict[str, Constant | Heuristic]:
    """The baselines that need no learning to speak of; unfitted."""
    return {"constant": Constant(kind), "heuristic": Heuristic(kind)}

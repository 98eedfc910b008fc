"""What a network has to beat (M2): the most frequent class, a person's rule, and the simplest learned model."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from .heuristic import Heuristic

Inputs = dict[str, NDArray[Any]]


class Majority:
    """Always answers the most frequent class of the training data."""

    def fit(self, inputs: Inputs, label: NDArray[np.int64]) -> "Majority":
        self.label = int(np.bincount(label).argmax())
        return self

    def predict(self, inputs: Inputs) -> NDArray[np.int64]:
        """Class indices [n]."""
        return np.full(len(next(iter(inputs.values()))), self.label, dtype=np.int64)


def flat(inputs: Inputs) -> NDArray[np.float32]:
    """All inputs side by side as one matrix [n, d], in the order of their names."""
    return np.concatenate([inputs[name].reshape(len(inputs[name]), -1) for name in sorted(inputs)], axis=1).astype(
        np.float32
    )


def classical(seed: int) -> Pipeline:
    """Logistic regression on standardised inputs; unfitted, takes `flat(inputs)`."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))


def simple_baselines() -> dict[str, Majority | Heuristic]:
    """The baselines that need no learning to speak of; unfitted."""
    return {"majority": Majority(), "heuristic": Heuristic()}

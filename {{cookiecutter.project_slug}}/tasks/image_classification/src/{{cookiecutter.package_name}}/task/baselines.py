"""What the network has to beat (M2): the simplest learned model that might do, and what a person
would write down.

The learned one is a candidate like the network; the rule of thumb is the bar that both must clear.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ..settings import Kind

NAME = "logistic regression"
TRUSTED: list[str] = []  # types beyond skops' own list that the stored model holds


def classical(kind: Kind, seed: int) -> Pipeline:
    """Logistic regression on standardised inputs; unfitted, takes `flat(inputs)`."""
    assert kind != "regression"
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))


def operations(model: Any) -> int:
    """Arithmetic operations that one row costs: a product and a sum per coefficient."""
    return int(2 * model[-1].coef_.size)


class Heuristic:
    """Guesses the class whose pictures have the most similar ink: how much, how high, how far left,
    how hollow.
    """

    def __init__(self, kind: Kind) -> None:
        assert kind != "regression"

    def fit(self, inputs: dict[str, NDArray[np.float32]], label: NDArray[np.int64]) -> "Heuristic":
        marks = self._marks(inputs)
        self.scale = marks.std(axis=0) + 1e-9
        self.centres = np.stack([marks[label == k].mean(axis=0) for k in range(label.max() + 1)])
        return self

    def predict(self, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.floating]:
        """Raw outputs [n, k]: logits of a class, the nearer its mean, the higher."""
        distance = (self._marks(inputs)[:, None] - self.centres[None]) / self.scale
        return np.asarray(-(distance**2).sum(axis=2))

    @staticmethod
    def _marks(inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        ink = inputs["image"].mean(axis=1, dtype=np.float64) / 255
        total, (_, height, width) = ink.sum(axis=(1, 2)) + 1e-9, ink.shape
        top, left = ink[:, : height // 2].sum(axis=(1, 2)), ink[:, :, : width // 2].sum(axis=(1, 2))
        middle = ink[:, height // 4 : -(height // 4), width // 4 : -(width // 4)].sum(axis=(1, 2))
        return np.stack([total, top / total, left / total, middle / total], axis=1)

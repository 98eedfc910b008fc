"""What a person would write down as a rule before any learning: the bar that a network must clear."""

import numpy as np
from numpy.typing import NDArray

from ..settings import Kind


class Heuristic:
    """Guesses the class whose pictures have the most similar ink: how much, how high, how far left, how hollow."""

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

"""What a person would write down as a rule before any learning: the bar that a network must clear."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..settings import Kind

BANDS = 4


class Heuristic:
    """Cuts the single most telling column into bands of equally many rows, and answers what is usual in the band."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def fit(self, inputs: dict[str, NDArray[np.float32]], label: NDArray[Any]) -> "Heuristic":
        matrix = self._matrix(inputs)
        target = label[:, None].astype(np.float64) if self.kind == "regression" else np.eye(label.max() + 1)[label]
        self.prior, self.error = target.mean(axis=0), np.inf
        for j in range(matrix.shape[1]):
            edges = np.unique(np.quantile(matrix[:, j], np.arange(1, BANDS) / BANDS))
            band = np.searchsorted(edges, matrix[:, j])
            # One row of the average joins each band: an empty one has no mean of its own.
            means = np.stack([np.vstack([target[band == b], self.prior]).mean(axis=0) for b in range(len(edges) + 1)])
            error = ((target - means[band]) ** 2).sum()
            if error < self.error:
                self.error, self.column, self.edges, self.means = error, j, edges, means
        return self

    def predict(self, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.floating]:
        """Raw outputs: values [n, 1], or logarithms of the classes' shares [n, k]."""
        found = self.means[np.searchsorted(self.edges, self._matrix(inputs)[:, self.column])]
        return np.asarray(found if self.kind == "regression" else np.log(found))

    @staticmethod
    def _matrix(inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([inputs[name] for name in sorted(inputs)], axis=1)

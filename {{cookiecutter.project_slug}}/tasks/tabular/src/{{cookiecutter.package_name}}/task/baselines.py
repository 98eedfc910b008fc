"""What the network has to beat (M2): the simplest learned model that might do, and what a person
would write down.

The learned one is a candidate like the network; the rule of thumb is the bar that both must clear.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.pipeline import Pipeline, make_pipeline

from ..settings import Kind

NAME = "gradient-boosted trees"
# The arrays of a fitted tree. Rebuilding one reads numbers and runs no code of the file's; that
# they are this project's own is what the hash in dvc.lock says.
TRUSTED = ["sklearn.tree._tree.Tree"]
# Large leaves, and few columns at a time: such trees lean on no single column, and so on no
# sensitive one.
OPTIONS = {"n_estimators": 100, "learning_rate": 0.04, "max_depth": 3, "subsample": 0.5}
LEAVES = {"min_samples_leaf": 30, "max_features": 0.3}


def classical(kind: Kind, seed: int) -> Pipeline:
    """Gradient-boosted trees; unfitted, takes `flat(inputs)`."""
    # Histogram-based trees are faster on many rows, but have no ONNX export that agrees with them.
    trees = GradientBoostingRegressor if kind == "regression" else GradientBoostingClassifier
    return make_pipeline(trees(**OPTIONS, **LEAVES, random_state=seed))


def operations(model: Any) -> int:
    """Arithmetic operations that one row costs: a comparison per level of each tree, and a sum."""
    return int(sum(tree.tree_.max_depth + 1 for tree in model[-1].estimators_.flat))


BANDS = 4


class Heuristic:
    """Cuts the single most telling column into bands of equally many rows, and answers what is
    usual in the band.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def fit(self, inputs: dict[str, NDArray[np.float32]], label: NDArray[Any]) -> "Heuristic":
        matrix, target = self._matrix(inputs), label[:, None].astype(np.float64)
        if self.kind != "regression":
            target = np.eye(label.max() + 1)[label]
        prior, least = target.mean(axis=0), np.inf
        for j, column in enumerate(matrix.T):
            edges = np.unique(np.quantile(column, np.arange(1, BANDS) / BANDS))
            band = np.eye(len(edges) + 1)[np.searchsorted(edges, column)]
            # One row of the average joins each band: an empty one has no mean of its own.
            means = (band.T @ target + prior) / (band.sum(axis=0)[:, None] + 1)
            error = ((target - band @ means) ** 2).sum()
            if error < least:
                least, self.column, self.edges, self.means = error, j, edges, means
        return self

    def predict(self, inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.floating]:
        """Raw outputs: values [n, 1], or logarithms of the classes' shares [n, k]."""
        found = self.means[np.searchsorted(self.edges, self._matrix(inputs)[:, self.column])]
        return np.asarray(found if self.kind == "regression" else np.log(found))

    @staticmethod
    def _matrix(inputs: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate([inputs[name] for name in sorted(inputs)], axis=1)

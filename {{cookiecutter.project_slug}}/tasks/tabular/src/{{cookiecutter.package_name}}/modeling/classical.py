"""The simplest learned model that might do (M2): a candidate like the network."""

from typing import Any

from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.pipeline import Pipeline, make_pipeline

from ..settings import Kind

NAME = "gradient-boosted trees"
# The arrays of a fitted tree. Rebuilding one reads numbers and runs no code of the file's; that they are this project's
# own is what the hash in dvc.lock says.
TRUSTED = ["sklearn.tree._tree.Tree"]
# Large leaves, and few columns at a time: such trees lean on no single column, and so on no sensitive one.
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

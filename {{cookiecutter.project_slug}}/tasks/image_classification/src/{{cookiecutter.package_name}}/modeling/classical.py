"""The simplest learned model that might do (M2): a candidate like the network."""

from typing import Any

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
    """Arithmetic operations that one row costs: a multiplication and an addition per coefficient."""
    return int(2 * model[-1].coef_.size)

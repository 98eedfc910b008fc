"""M8: changes that keep the label must keep the prediction."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..settings import Rate
from .verdict import Verdict, outcome

Inputs = dict[str, NDArray[Any]]


def violations(
    predict: Callable[[Inputs], NDArray[np.int64]], inputs: Inputs, invariances: dict[str, Any]
) -> dict[str, NDArray[np.bool_]]:
    """For each declared change, the rows [n] whose predicted class it alters."""
    before = predict(inputs)
    return {name: predict(change(inputs)) != before for name, change in invariances.items()}


def judge(found: dict[str, NDArray[np.bool_]], settings: Rate, examples: int) -> Verdict:
    """The worst change's rate of violations against its limit."""
    rates = {name: float(rows.mean()) for name, rows in found.items()}
    worst = max(rates, key=lambda name: rates[name])
    why = f"{worst} changes {rates[worst]:.1%} of the predictions"
    details = {
        "rates": rates,
        "violating_rows": {name: np.flatnonzero(rows)[:examples].tolist() for name, rows in found.items()},
    }
    return Verdict(
        "M8",
        "Invariance",
        outcome(rates[worst] <= settings.max_violations),
        round(rates[worst], 4),
        settings.max_violations,
        why,
        details,
    )

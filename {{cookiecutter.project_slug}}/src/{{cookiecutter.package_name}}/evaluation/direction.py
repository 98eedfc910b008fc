"""M9: a change with a known direction must move the output that way."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..settings import Rate
from .verdict import Verdict, outcome

Inputs = dict[str, NDArray[Any]]
TOLERANCE = 1e-3  # a fall of the probability by less is rounding, not a direction


def partners(label: NDArray[np.int64], rng: Generator) -> NDArray[np.int64]:
    """For each row the number of a random row of another class."""
    found = rng.permutation(len(label))
    for _ in range(100):
        same = np.flatnonzero(label[found] == label)
        if not len(same):
            break
        found[same] = rng.integers(0, len(label), len(same))
    return found


def violations(
    probabilities: Callable[[Inputs], NDArray[np.floating]],
    inputs: Inputs,
    label: NDArray[np.int64],
    directions: dict[str, Any],
    rng: Generator,
) -> dict[str, NDArray[np.bool_]]:
    """For each declared direction, the rows [n] on which the other class's probability falls although it must rise."""
    other = partners(label, rng)
    others, target = {k: v[other] for k, v in inputs.items()}, label[other]
    rows = np.arange(len(label))
    return {
        name: probabilities(more(inputs, others))[rows, target]
        < probabilities(less(inputs, others))[rows, target] - TOLERANCE
        for name, (less, more) in directions.items()
    }


def judge(found: dict[str, NDArray[np.bool_]], settings: Rate, examples: int) -> Verdict:
    """The worst direction's rate of violations against its limit."""
    rates = {name: float(rows.mean()) for name, rows in found.items()}
    worst = max(rates, key=lambda name: rates[name])
    why = f"{worst}: wrong way on {rates[worst]:.1%} of the rows"
    details = {
        "rates": rates,
        "violating_rows": {name: np.flatnonzero(rows)[:examples].tolist() for name, rows in found.items()},
    }
    return Verdict(
        "M9",
        "Direction",
        outcome(rates[worst] <= settings.max_violations),
        round(rates[worst], 4),
        settings.max_violations,
        why,
        details,
    )

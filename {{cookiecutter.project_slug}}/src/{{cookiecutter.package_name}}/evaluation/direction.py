"""M9: a change with a known direction must move the answer that way."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..settings import Rate
from ..types import Answers, Direction, Estimates, Inputs
from .verdict import Verdict, not_declared, outcome


def partners(label: NDArray[Any], rng: Generator) -> NDArray[np.int64]:
    """For each row the number of a random row with another label."""
    found = rng.permutation(len(label))
    for _ in range(100):
        same = np.flatnonzero(label[found] == label)
        if not len(same):
            break
        found[same] = rng.integers(0, len(label), len(same))
    return found


def violations(
    answer: Callable[[Inputs], Answers],
    inputs: Inputs,
    label: NDArray[Any],
    directions: dict[str, Direction],
    labels: list[str],
    tolerance: float,
    rng: Generator,
) -> dict[str, NDArray[np.bool_]]:
    """For each declared direction, the rows [n] on which the answer falls, by more than the
    tolerance, where it must not: a value in the label's unit, or the probability of the direction's
    class.
    """
    other = partners(label, rng)
    others = {k: v[other] for k, v in inputs.items()}

    def level(changed: Inputs, name: str | None) -> NDArray[np.floating]:
        answers = answer(changed)
        if isinstance(answers, Estimates):
            return answers.value
        column = label[other] if name is None else labels.index(name)
        return np.asarray(answers.probabilities[np.arange(len(label)), column])

    return {
        name: np.asarray(
            level(d.more(inputs, others), d.label)
            < level(d.less(inputs, others), d.label) - tolerance
        )
        for name, d in directions.items()
    }


def judge(found: dict[str, NDArray[np.bool_]], settings: Rate, examples: int) -> Verdict:
    """The worst direction's rate of violations against its limit."""
    if not found:
        return not_declared("M9", "Direction")
    rates = {name: float(rows.mean()) for name, rows in found.items()}
    worst = max(rates, key=lambda name: rates[name])
    why = f"{worst}: wrong way on {rates[worst]:.1%} of the rows"
    shown = {name: np.flatnonzero(rows)[:examples].tolist() for name, rows in found.items()}
    details = {"rates": rates, "violating_rows": shown}
    passed = rates[worst] <= settings.max_violations
    return Verdict(
        "M9",
        "Direction",
        outcome(passed),
        round(rates[worst], 4),
        settings.max_violations,
        why,
        details,
    )

"""M8: changes that must not matter must keep the answer."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..settings import Rate
from ..types import Answers, Change, Decisions, Estimates, Inputs
from .verdict import Verdict, not_declared, outcome


def differs(a: Answers, b: Answers, tolerance: float) -> NDArray[np.bool_]:
    """Rows [n] with another class, or with a value that moved by more than the tolerance."""
    if isinstance(a, Estimates) and isinstance(b, Estimates):
        return np.asarray(np.abs(a.value - b.value) > tolerance)
    assert isinstance(a, Decisions) and isinstance(b, Decisions)
    return np.asarray(a.label != b.label)


def violations(
    answer: Callable[[Inputs], Answers],
    inputs: Inputs,
    invariances: dict[str, Change],
    tolerance: float,
) -> dict[str, NDArray[np.bool_]]:
    """For each declared change, the rows [n] whose answer it alters; the tolerance is in the
    label's unit.
    """
    before = answer(inputs)
    return {
        name: differs(before, answer(change(inputs)), tolerance)
        for name, change in invariances.items()
    }


def judge(found: dict[str, NDArray[np.bool_]], settings: Rate, examples: int) -> Verdict:
    """The worst change's rate of violations against its limit."""
    if not found:
        return not_declared("M8", "Invariance")
    rates = {name: float(rows.mean()) for name, rows in found.items()}
    worst = max(rates, key=lambda name: rates[name])
    why = f"{worst} changes {rates[worst]:.1%} of the answers"
    shown = {name: np.flatnonzero(rows)[:examples].tolist() for name, rows in found.items()}
    details = {"rates": rates, "violating_rows": shown}
    passed = rates[worst] <= settings.max_violations
    return Verdict(
        "M8",
        "Invariance",
        outcome(passed),
        round(rates[worst], 4),
        settings.max_violations,
        why,
        details,
    )

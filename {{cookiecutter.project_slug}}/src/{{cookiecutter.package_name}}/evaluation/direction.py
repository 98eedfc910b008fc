"""M8: changes that must not matter keep the answer. M9: changes with a known direction move it that
way.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..modeling import kinds
from ..settings import Kind, Rate
from ..types import Answers, Change, Direction, Floats, Inputs
from .verdict import Verdict, not_declared, outcome

Answer = Callable[[Inputs], Answers]
Violations = dict[str, NDArray[np.bool_]]
"""By declared change, the rows [n] that violate it."""


def altered(
    kind: Kind, answer: Answer, inputs: Inputs, changes: dict[str, Change], tolerance: float
) -> Violations:
    """Rows whose answer a harmless change alters (M8); the tolerance is in the label's unit."""
    before, differs = answer(inputs), kinds.of(kind).differs
    return {
        name: differs(before, answer(change(inputs)), tolerance) for name, change in changes.items()
    }


def partners(label: NDArray[Any], rng: Generator) -> NDArray[np.int64]:
    """For each row the number of a random row with another label."""
    others = rng.permutation(len(label))
    for _ in range(100):
        same = np.flatnonzero(label[others] == label)
        if not len(same):
            break
        others[same] = rng.integers(0, len(label), len(same))
    return others


def levels(
    kind: Kind, answers: Answers, direction: Direction, label: NDArray[Any], labels: list[str]
) -> Floats:
    """What a direction compares [n]: values, or probabilities of its class; where it names none,
    of the partner's `label` [n].
    """
    named = direction.label is not None and bool(labels)
    column = labels.index(str(direction.label)) if named else label
    return np.asarray(kinds.of(kind).levels(answers, column))


def misdirected(
    kind: Kind,
    answer: Answer,
    inputs: Inputs,
    label: NDArray[Any],
    directions: dict[str, Direction],
    labels: list[str],
    tolerance: float,
    rng: Generator,
) -> Violations:
    """Rows on which the answer falls, by more than the tolerance, where it must not (M9): a value
    in the label's unit, or the probability of the direction's class.
    """
    other = partners(label, rng)
    others, violations = {k: v[other] for k, v in inputs.items()}, {}
    for name, direction in directions.items():
        more, less = (
            levels(kind, answer(change(inputs, others)), direction, label[other], labels)
            for change in (direction.more, direction.less)
        )
        violations[name] = np.asarray(more < less - tolerance)
    return violations


def judge(method: str, violations: Violations, settings: Rate, examples: int) -> Verdict:
    """The worst change's rate of violations against its limit, for M8 or M9."""
    title = {"M8": "Invariance", "M9": "Direction"}[method]
    if not violations:
        return not_declared(method, title)
    rates = {name: float(rows.mean()) for name, rows in violations.items()}
    worst = max(rates, key=lambda name: rates[name])
    why = {
        "M8": f"{worst} changes {rates[worst]:.1%} of the answers",
        "M9": f"{worst}: wrong way on {rates[worst]:.1%} of the rows",
    }[method]
    first = {name: np.flatnonzero(rows)[:examples].tolist() for name, rows in violations.items()}
    details = {"rates": rates, "violating_rows": first}
    number, limit = rates[worst], settings.max_violations
    return Verdict(method, title, outcome(number <= limit), round(number, 4), limit, why, details)

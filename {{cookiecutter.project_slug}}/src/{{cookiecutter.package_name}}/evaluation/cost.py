"""M4: answers by what errors cost. The threshold, the classes' costs or the shift of a value, and
what answers cost.

Costs of classes are a matrix [k, k] of answering the column when the row is true; those of values
are {under, over}, of a unit too low and too high.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modeling import kinds
from ..modeling.kinds.classes import softmax
from ..settings import Cost, Kind
from ..types import Answers, Floats, Rule
from .by_kind import of_values
from .verdict import Verdict, outcome

Costs = list[list[float]] | dict[Any, float] | None


def fit(
    kind: Kind, costs: Costs, raw: Floats, label: NDArray[Any], temperature: float
) -> dict[str, Any]:
    """Threshold, costs and shift of a `Rule` from raw outputs [n, ...] and label [n] of validation
    data.
    """
    if isinstance(costs, dict):
        answers = kinds.of(kind).decide(raw, Rule(temperature=temperature))
        return {"shift": of_values().shift(answers, label, costs)}
    if costs is not None and len(costs) == 2:
        positive = softmax(raw, temperature)[:, 1]
        return {"threshold": threshold(positive, label, np.array(costs, float)), "costs": costs}
    return {"costs": costs}


def threshold(positive: Floats, label: NDArray[np.int64], costs: Floats) -> float:
    """The probability from which the second class is answered, from its probability [n] and the
    label [n].

    Calibrated probabilities call for Bayes' threshold (Elkan 2001). Validation data move it where
    its cost is more than a standard error above the least (Breiman et al. 1984), and no further: on
    few rows the least is mostly chance.
    """
    false_alarm, miss = costs[0, 1] - costs[0, 0], costs[1, 0] - costs[1, 1]
    bayes = float(false_alarm / (false_alarm + miss)) if false_alarm + miss else 0.5
    order = np.argsort(positive, kind="stable")
    p = positive[order]
    # Change of the cost where a row falls below the threshold.
    change = np.where(label[order] == 1, miss, -false_alarm)
    total = np.append(0.0, np.cumsum(change))
    squares = np.append(0.0, np.cumsum(change**2))
    low, high = np.append(0.0, np.nextafter(p, 1)), np.append(p, 1.0)
    possible = low <= high  # rows of equal probability cannot be parted
    best = np.where(possible, total, np.inf).argmin()
    excess = total - total[best]
    error = np.sqrt(np.maximum(np.abs(squares - squares[best]) - excess**2 / len(p), 0))
    nearest = np.clip(bayes, low, np.maximum(low, high))
    distance = np.where(possible & (excess <= error), np.abs(nearest - bayes), np.inf)
    return float(nearest[distance.argmin()])


def row_costs(kind: Kind, costs: Costs, answers: Answers, label: NDArray[Any]) -> Floats:
    """What each answer [n] costs, in the units of the costs; where none are given, 1 for a wrong
    class, and the absolute error of a value.
    """
    given: Any = answers
    if kinds.of(kind).ZERO_ONE:
        return np.asarray(_table(kind, costs, given.probabilities.shape[1])[label, given.label])
    return np.asarray(of_values().costs(_table(kind, costs), given.value, label))


def _table(kind: Kind, costs: Costs, num_classes: int = 0) -> Any:
    """The costs, or the kind's own where none are given."""
    given: Any = kinds.of(kind).default_costs(num_classes) if costs is None else costs
    return given if isinstance(given, dict) else np.array(given, dtype=np.float64)


def constant_cost(
    kind: Kind, costs: Costs, label: NDArray[Any], num_classes: int
) -> tuple[Any, float]:
    """The answer that costs least if it is always given to rows with this label [n], and its mean
    cost.
    """
    table = _table(kind, costs, num_classes)
    if isinstance(table, dict):
        cheapest: tuple[Any, float] = of_values().constant_cost(table, label)
        return cheapest
    means = table[label].mean(axis=0)
    return int(means.argmin()), float(means.min())


def judge(
    kind: Kind, costs: Costs, answers: Answers, label: NDArray[Any], settings: Cost
) -> Verdict:
    """The mean cost of answers on test data as a share of the cheapest constant answer's, which
    those labels choose.
    """
    given: Any = answers
    num_classes = given.probabilities.shape[1] if kinds.of(kind).ZERO_ONE else 0
    answer, always = constant_cost(kind, costs, label, num_classes)
    mean = float(row_costs(kind, costs, answers, label).mean())
    details = {"mean_cost": mean, "constant_answer": answer, "constant_cost": always}
    details["costs"] = costs
    if always == 0:
        why = (
            "one constant answer costs nothing on the test data: they hold a single label, "
            "or the costs are all 0"
        )
        return Verdict("M4", "Cost", "cannot tell", None, settings.max_ratio, why, details)
    ratio = mean / always
    why = f"its answers cost {ratio:.1%} of what always giving the cheapest one would, "
    why += f"{mean:.4g} each on average"
    passed = outcome(ratio <= settings.max_ratio)
    return Verdict("M4", "Cost", passed, round(ratio, 4), settings.max_ratio, why, details)

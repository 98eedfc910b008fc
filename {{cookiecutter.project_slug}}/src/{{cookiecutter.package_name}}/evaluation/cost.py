"""M4: answers by what errors cost. The threshold, the classes' costs or the shift of a value, and
what answers cost.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modeling.kinds.classes import softmax
from ..modeling.kinds.values import decide as estimate
from ..settings import Cost, Kind
from ..types import Answers, Estimates, Rule
from .verdict import Verdict, outcome

Floats = NDArray[np.floating]
Costs = list[list[float]] | dict[Any, float] | None


def fit(
    kind: Kind, costs: Costs, raw: Floats, label: NDArray[Any], temperature: float
) -> dict[str, Any]:
    """Threshold, costs and shift of a `Rule` from raw outputs [n, ...] and label [n] of validation
    data.
    """
    if isinstance(costs, dict):
        answers = estimate(raw, Rule(temperature=temperature))
        return {
            "threshold": None,
            "costs": None,
            "shift": shift((label - answers.value) / answers.deviation, costs),
        }
    if kind == "binary" and costs is not None:
        positive = softmax(raw, temperature)[:, 1]
        return {
            "threshold": threshold(positive, label, matrix(costs, 2)),
            "costs": costs,
            "shift": 0.0,
        }
    return {"threshold": None, "costs": costs, "shift": 0.0}


def matrix(costs: Costs, num_classes: int) -> Floats:
    """Costs [k, k] of answering the column when the row is true; 1 for every error where none are
    given.
    """
    return 1 - np.eye(num_classes) if costs is None else np.array(costs, dtype=np.float64)


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
    p, n = positive[order], len(positive)
    change = np.where(
        label[order] == 1, miss, -false_alarm
    )  # of the cost, where a row falls below the threshold
    total = np.concatenate([[0.0], np.cumsum(change)])
    squares = np.concatenate([[0.0], np.cumsum(change**2)])
    low, high = np.concatenate([[0.0], np.nextafter(p, 1)]), np.concatenate([p, [1.0]])
    possible = low <= high  # rows of equal probability cannot be parted
    best = np.where(possible, total, np.inf).argmin()
    excess = total - total[best]
    error = np.sqrt(np.maximum(np.abs(squares - squares[best]) - excess**2 / n, 0))
    nearest = np.clip(bayes, low, np.maximum(low, high))
    distance = np.where(possible & (excess <= error), np.abs(nearest - bayes), np.inf)
    return float(nearest[distance.argmin()])


def shift(residuals: Floats, costs: dict[Any, float]) -> float:
    """What to add to a value, in its standard deviations, from standardised residuals [n].

    Where a unit too low costs `under` and a unit too high `over`, the cheapest answer is the
    quantile at under / (under + over) of what may be true (Koenker and Bassett 1978,
    doi:10.2307/1913643).
    """
    under, over = costs["under"], costs["over"]
    return 0.0 if under == over else float(np.quantile(residuals, under / (under + over)))


def row_costs(costs: Costs, answers: Answers, label: NDArray[Any]) -> Floats:
    """What each answer [n] costs, in the units of the costs; the absolute error of values where
    none are given.
    """
    if isinstance(answers, Estimates):
        return _value_costs(costs, answers.value, label)
    return np.asarray(matrix(costs, answers.probabilities.shape[1])[label, answers.label])


def _value_costs(costs: Costs, value: Floats | float, label: NDArray[Any]) -> Floats:
    units = costs if isinstance(costs, dict) else {"under": 1.0, "over": 1.0}
    missing = label - value
    return np.asarray(np.where(missing > 0, units["under"] * missing, -units["over"] * missing))


def constant_cost(
    kind: Kind, costs: Costs, label: NDArray[Any], num_classes: int
) -> tuple[Any, float]:
    """The answer that costs least if it is always given to rows with this label [n], and its mean
    cost.
    """
    if kind == "regression":
        units = costs if isinstance(costs, dict) else {"under": 1.0, "over": 1.0}
        value = float(np.quantile(label, units["under"] / (units["under"] + units["over"])))
        return value, float(_value_costs(costs, value, label).mean())
    means = matrix(costs, num_classes)[label].mean(axis=0)
    return int(means.argmin()), float(means.min())


def judge(
    kind: Kind, costs: Costs, answers: Answers, label: NDArray[Any], settings: Cost
) -> Verdict:
    """The mean cost of answers on test data as a share of the cheapest constant answer's, which
    those labels choose.
    """
    num_classes = 0 if isinstance(answers, Estimates) else answers.probabilities.shape[1]
    answer, always = constant_cost(kind, costs, label, num_classes)
    mean = float(row_costs(costs, answers, label).mean())
    details = {
        "mean_cost": mean,
        "constant_answer": answer,
        "constant_cost": always,
        "costs": costs,
    }
    if always == 0:
        why = "one constant answer costs nothing on the test data: they hold a single label, or the costs are all 0"
        return Verdict("M4", "Cost", "cannot tell", None, settings.max_ratio, why, details)
    ratio = mean / always
    why = f"an answer costs {mean:.4g} on average, {ratio:.0%} of what the cheapest constant answer does"
    passed = outcome(ratio <= settings.max_ratio)
    return Verdict("M4", "Cost", passed, round(ratio, 4), settings.max_ratio, why, details)

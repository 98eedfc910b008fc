"""The methods of values: whether deviations keep what they promise (M10, M11), and what a unit too
low or too high costs (M4).
"""

from typing import Any

import numpy as np
from scipy import stats

from ..settings import Calibration
from ..types import Estimates, Floats, Rule
from .chance import ALPHA, DRAWS, beyond_chance, in_words, weights
from .verdict import Outcome, Verdict, outcome

LEVELS = np.arange(1, 10) / 10  # of intervals
TINY = 1e-9  # of equal deviations the ratio is 1 but for rounding


def temperature(answers: Estimates, label: Floats) -> float:
    """That of greatest Gaussian likelihood: the root mean square of standardised residuals."""
    return float(np.sqrt((((label - answers.value) / answers.deviation) ** 2).mean()))


def coverage(residuals: Floats) -> dict[str, Any]:
    """Share of standardised residuals [n] in each central Gaussian interval (Kuleshov et al. 2018,
    arXiv:1807.00263).

    `gap` is the mean distance from the levels, `debiased` what is left of it after that of a
    perfect model.
    """
    n, edges = len(residuals), stats.norm.ppf((1 + LEVELS) / 2)
    shares = (np.abs(residuals)[:, None] <= edges).mean(axis=0)
    drawn = np.random.default_rng(0).multinomial(n, np.full(10, 0.1), DRAWS)
    by_chance = drawn.cumsum(axis=1)[:, :9] / n
    gap = float(np.abs(shares - LEVELS).mean())
    return {
        "diagram": {"level": LEVELS.tolist(), "coverage": shares.tolist()},
        "gap": gap,
        **beyond_chance(gap, np.abs(by_chance - LEVELS).mean(axis=1)),
    }


def calibration(
    answers: Estimates, label: Floats, rule: Rule, settings: Calibration, scale: float
) -> Verdict:
    """M10: whether intervals cover what they promise."""
    details = coverage((label - answers.value) / answers.deviation)
    gap, limit = details["debiased"], settings.max_gap
    why = f"intervals are off by {gap:.2%} of the rows more than chance explains, "
    why += f"{details['gap']:.2%} in all, on average over nine levels"
    details |= {
        "temperature": rule.temperature,
        "mean_deviation": float(answers.deviation.mean() / scale),
    }
    passed = outcome(gap <= limit or details["p"] >= ALPHA)
    return Verdict("M10", "Calibration", passed, round(gap, 4), limit, why, details)


def promised(deviation: Floats) -> tuple[float, float]:
    """The ratio of `aurc` that deviations [n] promise, and its standard deviation for Gaussian
    errors.
    """
    square, weight = deviation**2, weights(-deviation)
    ratio = float((weight * square).sum() / square.sum())
    return ratio, float(np.sqrt(2 * ((weight - ratio) ** 2 * square**2).sum()) / square.sum())


def keeps_promise(deviation: Floats, ratio: float) -> tuple[Outcome, float, str]:
    """Whether the ratio of `aurc` speaks for deviations [n], against which limit, and in words.

    Hard and easy values may hardly differ: so deviations must keep half of what they promise, be
    that much or little.
    """
    promise, error = promised(deviation)
    limit, rare = (1 + promise) / 2, promise + float(stats.norm.isf(ALPHA)) * error + TINY
    words = f"{in_words(ratio)}; the deviations promise {promise:.2f}"
    return "fail" if ratio > max(limit, rare) else "pass", limit, words


def shift(answers: Estimates, label: Floats, costs: dict[Any, float]) -> float:
    """What to add to a value, in its standard deviations, from validation data [n].

    Where a unit too low costs `under` and a unit too high `over`, the cheapest answer is the
    quantile at under / (under + over) of what may be true (Koenker and Bassett 1978,
    doi:10.2307/1913643).
    """
    if costs["under"] == costs["over"]:
        return 0.0
    return float(np.quantile((label - answers.value) / answers.deviation, _level(costs)))


def _level(costs: dict[Any, float]) -> float:
    return costs["under"] / (costs["under"] + costs["over"])


def costs(costs: dict[Any, float], value: Floats | float, label: Floats) -> Floats:
    """Of each answer [n]."""
    missing = label - value
    return np.asarray(np.where(missing > 0, costs["under"] * missing, -costs["over"] * missing))


def constant_cost(table: dict[Any, float], label: Floats) -> tuple[float, float]:
    """The value that costs least if it is always given, and its mean cost."""
    value = float(np.quantile(label, _level(table)))
    return value, float(costs(table, value, label).mean())

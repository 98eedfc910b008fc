"""Split conformal prediction (M11): sets and intervals that hold the truth as often as promised,
and a check of it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..modeling.kinds.classes import softmax
from ..modeling.kinds.values import decide as estimate
from ..settings import Kind
from ..types import Answers, Estimates, Rule

Floats = NDArray[np.floating]
# 1 - (1 - p) is not p in floating point, and the row that set the quantile must lie within it
ROUNDING = 1e-9


def scores(kind: Kind, raw: Floats, label: NDArray[Any], rule: Rule) -> Floats:
    """What `decide` compares with the quantile [n]: 1 - p of the true class, or the standardised
    distance.
    """
    if kind == "regression":
        answers = estimate(raw, rule.model_copy(update={"shift": 0.0}))
        return np.asarray(np.abs(label - answers.value) / answers.deviation)
    return np.asarray(1 - softmax(raw, rule.temperature)[np.arange(len(label)), label])


def quantile(scores: Floats, alpha: float) -> float:
    """The quantile of calibration scores [n] within which a fresh one lies with probability 1 -
    alpha or more.

    Split conformal prediction: Papadopoulos et al. 2002; Vovk et al. 2005.
    """
    rank = int(np.ceil((len(scores) + 1) * (1 - alpha)))
    if rank > len(scores):
        needed = int(np.ceil(1 / alpha)) - 1
        raise ValueError(
            f"{len(scores)} calibration rows cannot promise {1 - alpha:.0%}: needs {needed} or more"
        )
    return float(np.sort(scores)[rank - 1]) + ROUNDING


def coverage(
    answers: Answers, label: NDArray[Any], num_calibration: int, alpha: float
) -> dict[str, float]:
    """Share of rows [n] whose set or interval holds the truth, and the p-value of so few under the
    promise.

    A quantile from few rows makes the true coverage vary: the count is beta-binomial (Vovk 2012,
    arXiv:1209.2673).
    """
    if isinstance(answers, Estimates):
        held = (answers.intervals[:, 0] <= label) & (label <= answers.intervals[:, 1])
        sizes = answers.intervals[:, 1] - answers.intervals[:, 0]
    else:
        held, sizes = answers.sets[np.arange(len(label)), label], answers.sets.sum(axis=1)
    rank = int(np.ceil((num_calibration + 1) * (1 - alpha)))
    p = stats.betabinom.cdf(held.sum(), len(label), rank, num_calibration + 1 - rank)
    return {
        "set_coverage": float(held.mean()),
        "coverage_p": float(p),
        "mean_set_size": float(sizes.mean()),
    }

"""Split conformal prediction (M11): sets and intervals that hold the truth as often as promised,
and a check of it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..modeling import kinds
from ..settings import Kind
from ..types import Answers, Floats

# 1 - (1 - p) is not p in floating point, and the row that set the quantile must lie within it
ROUNDING = 1e-9


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
    kind: Kind, answers: Answers, label: NDArray[Any], num_calibration: int, alpha: float
) -> dict[str, float]:
    """Share of rows [n] whose set or interval holds the truth, and the p-value of so few under the
    promise.

    A quantile from few rows makes the true coverage vary: the count is beta-binomial (Vovk 2012,
    arXiv:1209.2673).
    """
    covered, sizes = kinds.of(kind).coverage(answers, label)
    rank = int(np.ceil((num_calibration + 1) * (1 - alpha)))
    p = stats.betabinom.cdf(covered.sum(), len(label), rank, num_calibration + 1 - rank)
    return {
        "set_coverage": float(covered.mean()),
        "coverage_p": float(p),
        "mean_set_size": float(sizes.mean()),
    }

"""M12: is any named subgroup served clearly worse than the whole?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..settings import Slices
from .verdict import Verdict, outcome

Bools = NDArray[np.bool_]


def table(correct: Bools, masks: dict[str, Bools], settings: Slices) -> list[dict[str, Any]]:
    """Rows, accuracy and Wilson interval of each slice with at least `min_size` rows, worst first.

    Intervals are Bonferroni-corrected over the slices, so that looking at many does not make one look bad by chance.
    """
    large = {name: mask for name, mask in masks.items() if mask.sum() >= settings.min_size}
    found = []
    for name, mask in large.items():
        n, right = int(mask.sum()), int(correct[mask].sum())
        interval = stats.binomtest(right, n).proportion_ci(1 - settings.alpha / len(large), method="wilson")
        found.append(
            {"slice": name, "rows": n, "accuracy": right / n, "low": float(interval.low), "high": float(interval.high)}
        )
    return sorted(found, key=lambda row: row["accuracy"])


def judge(correct: Bools, masks: dict[str, Bools], settings: Slices) -> Verdict:
    """The worst slice's gap to the overall accuracy against its limit."""
    rows, overall = table(correct, masks, settings), float(correct.mean())
    if not rows:
        return Verdict("M12", "Slices", "cannot tell", None, settings.max_gap, f"no slice has {settings.min_size} rows")
    worst = rows[0]
    gap = overall - worst["accuracy"]
    why = f"worst is {worst['slice']} with {worst['accuracy']:.1%} of {worst['rows']} rows, {overall:.1%} over all"
    return Verdict(
        "M12",
        "Slices",
        outcome(gap <= settings.max_gap),
        round(gap, 4),
        settings.max_gap,
        why,
        {"slices": rows, "overall": overall},
    )

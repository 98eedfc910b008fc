"""What chance alone gives, which methods of all kinds compare with."""

import numpy as np

from ..types import Floats

DRAWS = 2000
ALPHA = 0.01  # what is off by more than its limit is refused where chance is rarer than this


def beyond_chance(gap: float, chance: Floats) -> dict[str, float]:
    """What is left of a gap after the mean of those [draws] that chance gives, and its p-value
    among them.
    """
    p = float((1 + (chance >= gap).sum()) / (len(chance) + 1))
    return {"debiased": max(0.0, gap - float(chance.mean())), "p": p}


def weights(confidence: Floats) -> Floats:
    """What a row's loss [n] counts in the area under the risk: 1 on average, most where the model
    is surest.
    """
    n = len(confidence)
    ranked = np.empty(n)
    ranked[np.argsort(-confidence, kind="stable")] = np.cumsum(1 / np.arange(n, 0, -1))[::-1]
    _, group, rows = np.unique(confidence, return_inverse=True, return_counts=True)
    return np.asarray((np.bincount(group, ranked) / rows)[group])


def in_words(ratio: float) -> str:
    return f"the surest answers first, mean loss is {ratio:.3g} of what it is in any order"

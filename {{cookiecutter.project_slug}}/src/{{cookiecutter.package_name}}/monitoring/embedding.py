"""Has the distribution of the network's embeddings changed? Maximum mean discrepancy.

Unbiased estimate of MMD², eq. 3 of Gretton et al. 2012 (JMLR 13), with an RBF kernel whose
bandwidth is the median distance, and a permutation p-value. Its cost is quadratic in the rows, so
both sides are capped by random choice.
"""

import math

import numpy as np

from ..types import Floats
from .samples import Result


def mmd_test(
    reference: Floats, window: Floats, permutations: int, rng: np.random.Generator, max_rows: int
) -> Result:
    """Test of embeddings [m, e] and [n, e]."""
    x, y = _cap(reference, max_rows, rng), _cap(window, max_rows, rng)
    kernel = _rbf(np.vstack([x, y]).astype(np.float64))
    observed = (np.arange(len(kernel)) < len(x)).astype(float)[:, None]
    statistic = float(_mmd_squared(kernel, observed)[0])
    shuffled = rng.permuted(np.repeat(observed, permutations, axis=1), axis=0)
    beyond = int((_mmd_squared(kernel, shuffled) >= statistic - 1e-12).sum())
    p, effect = (1 + beyond) / (1 + permutations), math.sqrt(max(0.0, statistic))
    detail = f"{permutations} permutations"
    return Result("embedding", "maximum mean discrepancy", statistic, p, effect, "MMD", detail)


def _cap(rows: Floats, limit: int, rng: np.random.Generator) -> Floats:
    if len(rows) <= limit:
        return rows
    return rows[np.sort(rng.choice(len(rows), limit, replace=False))]


def _rbf(rows: Floats) -> Floats:
    """Kernel [N, N] with a zero diagonal."""
    from scipy.spatial.distance import pdist, squareform

    squared = pdist(rows, "sqeuclidean")
    median = float(np.median(squared)) or 1.0
    return np.asarray(squareform(np.exp(-squared / (2 * median))))


def _mmd_squared(kernel: Floats, in_first: Floats) -> Floats:
    """MMD² [b] for b ways to split the N rows: in_first [N, b] is 1 in the first sample."""
    m = in_first[:, 0].sum()
    n = len(kernel) - m
    first = ((kernel @ in_first) * in_first).sum(axis=0)
    across = kernel.sum(axis=1) @ in_first - first
    second = kernel.sum() - 2 * across - first
    return np.asarray(first / (m * (m - 1)) + second / (n * (n - 1)) - 2 * across / (m * n))

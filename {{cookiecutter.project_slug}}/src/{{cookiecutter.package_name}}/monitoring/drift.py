"""Has the stream of requests changed? Tests on what the model answers, with one correction over all
of them.

Which tests, and why one correction over all: Rabanser et al. 2019, "Failing Loudly"
(arXiv:1810.11953).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .samples import Sample

Floats = NDArray[np.floating]
MIN_EXPECTED = 5  # Cochran's rule for the chi-square approximation
# stored answers are rounded: finer differences between both sides would be differences of rounding
DECIMALS = 6
MAX_CATEGORIES = 10  # a signal with at most so many different values is one of categories
STRENGTH = (
    (0.5, "strongly"),
    (0.3, "clearly"),
    (0.0, "slightly"),
)  # Cohen 1988, for w; used for D and MMD as a guide


@dataclass(frozen=True)
class Result:
    """One test. `p` is raw, `adjusted` is corrected over the whole family; `effect` grows from 0
    (equal).
    """

    name: str
    method: str
    statistic: float
    p: float
    effect: float
    effect_name: str
    detail: str = ""
    adjusted: float = 1.0
    alarm: bool = False

    @property
    def words(self) -> str:
        """The verdict as a person would say it."""
        if not self.alarm:
            return "no change seen"
        return next(word for limit, word in STRENGTH if abs(self.effect) >= limit) + " changed"


def ks(reference: Floats, window: Floats) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov statistic D and p-value for values [m] and [n]; conservative
    where values tie.
    """
    from scipy.stats import ks_2samp

    result = ks_2samp(np.round(reference, DECIMALS), np.round(window, DECIMALS), method="asymp")
    return float(result.statistic), float(result.pvalue)


def scalar_test(name: str, reference: Floats, window: Floats) -> Result:
    """Test of one number per row, [m] against [n]: chi-square where there are few different values,
    else KS.

    A missing value is a category of its own, or lower than all others: so a change of its share is
    a change, too.
    """
    # As the reference is stored: what was equal stays equal.
    reference, window = np.asarray(reference, np.float32), np.asarray(window, np.float32)
    values = np.unique(np.concatenate([reference, window]))
    values = values[~np.isnan(values)]
    if len(values) <= MAX_CATEGORIES:
        counts = [
            [*(side[:, None] == values).sum(axis=0), np.isnan(side).sum()]
            for side in (reference, window)
        ]
        table = np.array(counts, dtype=np.int64)
        return _chi_square(
            name, table[0], table[1], [*(f"{value:g}" for value in values), "missing values"]
        )
    scale = np.abs(reference[~np.isnan(reference)]).max(initial=0.0) or 1.0
    statistic, p = ks(
        *(np.where(np.isnan(side), -np.inf, side / scale) for side in (reference, window))
    )
    return Result(
        name, "Kolmogorov-Smirnov", statistic, p, statistic, "D", _medians(reference, window)
    )


def _medians(reference: Floats, window: Floats) -> str:
    """What changed, in words: the medians, and the share of missing values where there are any."""
    found, missing = [], []
    for side in (reference, window):
        known = side[~np.isnan(side)]
        found.append(float(np.median(known)) if len(known) else math.nan)
        missing.append(100 * (1 - len(known) / len(side)))
    text = f"median {found[0]:.3g} → {found[1]:.3g}, {'higher' if found[1] > found[0] else 'lower'}"
    return f"{text}; missing {missing[0]:.0f} → {missing[1]:.0f} %" if any(missing) else text


def softmax_test(reference: Floats, window: Floats, labels: list[str]) -> Result:
    """KS test of every column of the probabilities, [m, k] against [n, k], Bonferroni over the k
    columns.
    """
    columns = [ks(reference[:, j], window[:, j]) for j in range(reference.shape[1])]
    worst = int(np.argmin([p for _, p in columns]))
    statistic, p = columns[worst]
    detail = f"most: probability of {labels[worst]}"
    corrected = min(1.0, p * len(columns))
    return Result(
        "probabilities",
        "Kolmogorov-Smirnov per class",
        statistic,
        corrected,
        statistic,
        "D",
        detail,
    )


def pool(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [2, k] with the rarest columns added up until each expected count reaches
    MIN_EXPECTED.
    """
    table = table[:, np.argsort(table.sum(axis=0), kind="stable")]
    smaller_share = table.sum(axis=1).min() / max(1, table.sum())
    while table.shape[1] > 1 and table[:, 0].sum() * smaller_share < MIN_EXPECTED:
        merged = table[:, :1] + table[:, 1:2]
        table = np.hstack([merged, table[:, 2:]])
        table = table[:, np.argsort(table.sum(axis=0), kind="stable")]
    return table


def label_test(
    reference: NDArray[np.int64], window: NDArray[np.int64], labels: list[str]
) -> Result:
    """Chi-square test of equal label shares for counts [k] and [k]."""
    return _chi_square("predicted labels", reference, window, labels)


def _chi_square(
    name: str, reference: NDArray[np.int64], window: NDArray[np.int64], labels: list[str]
) -> Result:
    """Test of equal shares for counts [k] and [k]; the effect is Cramér's V."""
    from scipy.stats import chi2_contingency

    shift = window / max(1, window.sum()) - reference / max(1, reference.sum())
    most = int(np.argmax(np.abs(shift)))
    detail = f"most: share of {labels[most]} {100 * shift[most]:+.0f} points"
    table = pool(np.array([reference, window], dtype=np.int64))
    method, effect_name = "chi-square", "Cramér's V"
    if table.shape[1] < 2:
        return Result(
            name, method, 0.0, 1.0, 0.0, effect_name, "too few rows, or all of them equal"
        )
    statistic, p = (float(value) for value in chi2_contingency(table, correction=False)[:2])
    return Result(
        name, method, statistic, p, math.sqrt(statistic / table.sum()), effect_name, detail
    )


def mmd_test(
    reference: Floats, window: Floats, permutations: int, rng: np.random.Generator, max_rows: int
) -> Result:
    """Maximum mean discrepancy of embeddings [m, e] and [n, e]: RBF kernel, median heuristic,
    permutation p-value.

    Unbiased estimate of MMD², eq. 3 of Gretton et al. 2012 (JMLR 13). Its cost is quadratic in the
    rows, so both sides are capped by random choice.
    """
    x, y = _cap(reference, max_rows, rng), _cap(window, max_rows, rng)
    kernel = _rbf(np.vstack([x, y]).astype(np.float64))
    observed = np.zeros((len(kernel), 1))
    observed[: len(x)] = 1
    statistic = float(_mmd_squared(kernel, observed)[0])
    beyond = 0
    for start in range(0, permutations, 500):
        number = min(500, permutations - start)
        shuffled = rng.permuted(np.repeat(observed, number, axis=1), axis=0)
        beyond += int((_mmd_squared(kernel, shuffled) >= statistic - 1e-12).sum())
    p, effect = (1 + beyond) / (1 + permutations), math.sqrt(max(0.0, statistic))
    return Result(
        "embedding",
        "maximum mean discrepancy",
        statistic,
        p,
        effect,
        "MMD",
        f"{permutations} permutations",
    )


def _cap(rows: Floats, limit: int, rng: np.random.Generator) -> Floats:
    return (
        rows if len(rows) <= limit else rows[np.sort(rng.choice(len(rows), limit, replace=False))]
    )


def _rbf(rows: Floats) -> Floats:
    """Kernel [N, N] with a zero diagonal; the bandwidth is the median distance."""
    from scipy.spatial.distance import pdist, squareform

    squared = pdist(rows, "sqeuclidean")
    median = float(np.median(squared)) or 1.0
    return np.asarray(squareform(np.exp(-squared / (2 * median))))


def _mmd_squared(kernel: Floats, in_first: Floats) -> Floats:
    """MMD² [b] for b ways to split the N rows: in_first [N, b] is 1 for rows of the first sample."""
    m = in_first[:, 0].sum()
    n = len(kernel) - m
    first = ((kernel @ in_first) * in_first).sum(axis=0)
    across = kernel.sum(axis=1) @ in_first - first
    second = kernel.sum() - 2 * across - first
    return np.asarray(first / (m * (m - 1)) + second / (n * (n - 1)) - 2 * across / (m * n))


def holm(p: list[float]) -> list[float]:
    """Adjusted p-values: comparing them with alpha bounds the chance of any false alarm by alpha
    (Holm 1979).
    """
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


def compare(
    reference: Sample, window: Sample, labels: list[str], *, alpha: float, max_rows: int, seed: int
) -> list[Result]:
    """All tests of a window against the reference, with one Holm correction over them: false alarms
    at most alpha.
    """
    results = answer_tests(reference.answers, window.answers, labels)
    for name in sorted(reference.signals.keys() & window.signals.keys()):
        results.append(scalar_test(f"signal {name}", reference.signals[name], window.signals[name]))
    if reference.embedding is not None and window.embedding is not None:
        # The smallest p-value that permutations can give must survive the correction.
        permutations = math.ceil(2 * (len(results) + 1) / alpha) - 1
        rng = np.random.default_rng(seed)
        results.append(mmd_test(reference.embedding, window.embedding, permutations, rng, max_rows))
    adjusted = holm([r.p for r in results])
    return [
        replace(r, adjusted=a, alarm=a <= alpha) for r, a in zip(results, adjusted, strict=True)
    ]


def answer_tests(
    reference: Mapping[str, NDArray[Any]], window: Mapping[str, NDArray[Any]], labels: list[str]
) -> list[Result]:
    """Tests of what was answered: probabilities and shares of the labels, or values and their
    deviations.
    """
    if "value" in reference:
        names = {"value": "predicted values", "deviation": "predicted deviations"}
        return [scalar_test(text, reference[name], window[name]) for name, text in names.items()]
    counts = [np.bincount(side["label"], minlength=len(labels)) for side in (reference, window)]
    probabilities = softmax_test(reference["probabilities"], window["probabilities"], labels)
    return [probabilities, label_test(counts[0], counts[1], labels)]

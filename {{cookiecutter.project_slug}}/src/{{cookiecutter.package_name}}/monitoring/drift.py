"""Has the stream of requests changed? Tests on what the model answers, with one correction over all of them.

Which tests, and why one correction over all: Rabanser et al. 2019, "Failing Loudly" (arXiv:1810.11953).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
MIN_EXPECTED = 5  # Cochran's rule for the chi-square approximation
DECIMALS = 6  # stored answers are rounded: finer differences between both sides would be differences of rounding
STRENGTH = ((0.5, "strongly"), (0.3, "clearly"), (0.0, "slightly"))  # Cohen 1988, for w; used for D and MMD as a guide


@dataclass(frozen=True)
class Sample:
    """Outputs for n rows: probabilities [n, k], embedding [n, e] where the model has one, named signals, each [n]."""

    probabilities: Floats
    embedding: Floats | None
    signals: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True)
class Result:
    """One test. `p` is raw, `adjusted` is corrected over the whole family; `effect` grows from 0 (equal)."""

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
    """Two-sample Kolmogorov-Smirnov statistic D and p-value for values [m] and [n]; conservative where values tie."""
    from scipy.stats import ks_2samp

    result = ks_2samp(np.round(reference, DECIMALS), np.round(window, DECIMALS), method="asymp")
    return float(result.statistic), float(result.pvalue)


def signal_test(name: str, reference: Floats, window: Floats) -> Result:
    """KS test of one named scalar per row, [m] against [n]."""
    statistic, p = ks(reference, window)
    direction = "higher" if np.median(window) > np.median(reference) else "lower"
    detail = f"median {np.median(reference):.3g} → {np.median(window):.3g}, {direction}"
    return Result(f"signal {name}", "Kolmogorov-Smirnov", statistic, p, statistic, "D", detail)


def softmax_test(reference: Floats, window: Floats, labels: list[str]) -> Result:
    """KS test of every column of the probabilities, [m, k] against [n, k], Bonferroni over the k columns."""
    columns = [ks(reference[:, j], window[:, j]) for j in range(reference.shape[1])]
    worst = int(np.argmin([p for _, p in columns]))
    statistic, p = columns[worst]
    detail = f"most: probability of {labels[worst]}"
    corrected = min(1.0, p * len(columns))
    return Result("probabilities", "Kolmogorov-Smirnov per class", statistic, corrected, statistic, "D", detail)


def pool(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [2, k] with the rarest columns added up until each expected count reaches MIN_EXPECTED."""
    table = table[:, np.argsort(table.sum(axis=0), kind="stable")]
    smaller_share = table.sum(axis=1).min() / max(1, table.sum())
    while table.shape[1] > 1 and table[:, 0].sum() * smaller_share < MIN_EXPECTED:
        merged = table[:, :1] + table[:, 1:2]
        table = np.hstack([merged, table[:, 2:]])
        table = table[:, np.argsort(table.sum(axis=0), kind="stable")]
    return table


def label_test(reference: NDArray[np.int64], window: NDArray[np.int64], labels: list[str]) -> Result:
    """Chi-square test of equal label shares for counts [k] and [k]; the effect is Cramér's V."""
    from scipy.stats import chi2_contingency

    shift = window / max(1, window.sum()) - reference / max(1, reference.sum())
    most = int(np.argmax(np.abs(shift)))
    detail = f"most: share of {labels[most]} {100 * shift[most]:+.0f} points"
    table = pool(np.array([reference, window], dtype=np.int64))
    name, method, effect_name = "predicted labels", "chi-square", "Cramér's V"
    if table.shape[1] < 2:
        return Result(name, method, 0.0, 1.0, 0.0, effect_name, "too few rows, or one label only")
    statistic, p = (float(value) for value in chi2_contingency(table, correction=False)[:2])
    return Result(name, method, statistic, p, math.sqrt(statistic / table.sum()), effect_name, detail)


def mmd_test(reference: Floats, window: Floats, permutations: int, rng: np.random.Generator, max_rows: int) -> Result:
    """Maximum mean discrepancy of embeddings [m, e] and [n, e]: RBF kernel, median heuristic, permutation p-value.

    Unbiased estimate of MMD², eq. 3 of Gretton et al. 2012 (JMLR 13). Its cost is quadratic in the rows, so both sides
    are capped by random choice.
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
    return Result("embedding", "maximum mean discrepancy", statistic, p, effect, "MMD", f"{permutations} permutations")


def _cap(rows: Floats, limit: int, rng: np.random.Generator) -> Floats:
    return rows if len(rows) <= limit else rows[np.sort(rng.choice(len(rows), limit, replace=False))]


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
    """Adjusted p-values: comparing them with alpha bounds the chance of any false alarm by alpha (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


def compare(
    reference: Sample, window: Sample, labels: list[str], *, alpha: float, max_rows: int, seed: int
) -> list[Result]:
    """All tests of a window against the reference, with one Holm correction over them: false alarms at most alpha."""
    counts = [np.bincount(side.probabilities.argmax(axis=1), minlength=len(labels)) for side in (reference, window)]
    results = [
        softmax_test(reference.probabilities, window.probabilities, labels),
        label_test(counts[0], counts[1], labels),
    ]
    for name in sorted(reference.signals.keys() & window.signals.keys()):
        results.append(signal_test(name, reference.signals[name], window.signals[name]))
    if reference.embedding is not None and window.embedding is not None:
        # The smallest p-value that permutations can give must survive the correction.
        permutations = math.ceil(2 * (len(results) + 1) / alpha) - 1
        rng = np.random.default_rng(seed)
        results.append(mmd_test(reference.embedding, window.embedding, permutations, rng, max_rows))
    adjusted = holm([r.p for r in results])
    return [replace(r, adjusted=a, alarm=a <= alpha) for r, a in zip(results, adjusted, strict=True)]


def reference_sample(outputs: Mapping[str, NDArray[Any]]) -> Sample:
    """The reference arrays of a bundle as a sample."""
    names = [str(name) for name in outputs["signal_names"]]
    signals = {name: outputs["signals"][:, j] for j, name in enumerate(names)}
    return Sample(outputs["probabilities"], outputs.get("embedding"), signals)


def stored_sample(rows: Sequence[Mapping[str, Any]]) -> Sample:
    """The stored outputs of the rows as arrays; an embedding only where every row has one."""
    stored = [row["signals"] for row in rows]
    embeddings = [s.get("embedding") for s in stored]
    names = set.intersection(*(set(s["signals"]) for s in stored))
    return Sample(
        probabilities=np.array([s["probabilities"] for s in stored], dtype=np.float64),
        embedding=None if any(e is None for e in embeddings) else np.array(embeddings, dtype=np.float64),
        signals={name: np.array([s["signals"][name] for s in stored], dtype=np.float64) for name in sorted(names)},
    )

"""Has the stream of requests changed? Tests on what the model answers, with one correction over all
of them.

Which tests, and why one correction over all: Rabanser et al. 2019, "Failing Loudly"
(arXiv:1810.11953).
"""

import importlib.util
import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..settings import Monitoring
from ..types import Floats
from .samples import Result as Result
from .samples import Sample

# Only the full profile has it.
EMBEDDING = importlib.util.find_spec(f"{__package__}.embedding")
MIN_EXPECTED = 5  # Cochran's rule for the chi-square approximation
# stored answers are rounded: finer differences between both sides would be differences of rounding
DECIMALS = 6
MAX_CATEGORIES = 10  # a signal with at most so many different values is one of categories


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
    sides = [np.asarray(side, np.float32) for side in (reference, window)]
    values = np.unique(np.concatenate(sides))
    values = values[~np.isnan(values)]
    if len(values) <= MAX_CATEGORIES:
        counts = [[*(side[:, None] == values).sum(axis=0), np.isnan(side).sum()] for side in sides]
        return shares_test(name, counts, [*map("{:g}".format, values), "missing values"])
    scale = np.nanmax(np.abs(sides[0]), initial=0.0) or 1.0
    statistic, p = ks(*(np.where(np.isnan(side), -np.inf, side / scale) for side in sides))
    detail = _medians(*sides)
    return Result(name, "Kolmogorov-Smirnov", statistic, p, statistic, "D", detail)


def _medians(reference: Floats, window: Floats) -> str:
    """What changed, in words: the medians, and the share of missing values where there are any."""
    sides = (reference, window)
    missing = [100 * float(np.isnan(side).mean()) for side in sides]
    before, after = (np.nanmedian(side) if np.isfinite(side).any() else math.nan for side in sides)
    text = f"median {before:.3g} → {after:.3g}, {'higher' if after > before else 'lower'}"
    return f"{text}; missing {missing[0]:.0f} → {missing[1]:.0f} %" if any(missing) else text


def softmax_test(reference: Floats, window: Floats, labels: list[str]) -> Result:
    """KS test of every column of the probabilities, [m, k] against [n, k], Bonferroni over the k
    columns.
    """
    columns = [ks(a, b) for a, b in zip(reference.T, window.T, strict=True)]
    worst = int(np.argmin([p for _, p in columns]))
    statistic, p = columns[worst]
    method, detail = "Kolmogorov-Smirnov per class", f"most: probability of {labels[worst]}"
    corrected = min(1.0, p * len(columns))
    return Result("probabilities", method, statistic, corrected, statistic, "D", detail)


def pool(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [2, k] with the rarest columns added up until each expected count reaches
    MIN_EXPECTED.
    """
    smaller_share = table.sum(axis=1).min() / max(1, table.sum())
    columns = sorted(table.T.tolist(), key=sum)
    while len(columns) > 1 and sum(columns[0]) * smaller_share < MIN_EXPECTED:
        first, second, *rest = columns
        merged = [a + b for a, b in zip(first, second, strict=True)]
        columns = sorted([merged, *rest], key=sum)
    return np.array(columns, np.int64).T


def shares_test(name: str, counts: Any, labels: list[str]) -> Result:
    """Chi-square test of equal shares for the counts [2, k] of both sides; the effect is Cramér's
    V.
    """
    from scipy.stats import chi2_contingency

    method, effect_name = "chi-square", "Cramér's V"
    counts = np.array(counts, np.int64)
    table = pool(counts)
    if table.shape[1] < 2:
        detail = "too few rows, or all of them equal"
        return Result(name, method, 0.0, 1.0, 0.0, effect_name, detail)
    before, after = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    shift = after - before
    most = int(np.argmax(np.abs(shift)))
    detail = f"most: share of {labels[most]} {100 * shift[most]:+.0f} points"
    statistic, p = map(float, chi2_contingency(table, correction=False)[:2])
    effect = math.sqrt(statistic / table.sum())
    return Result(name, method, statistic, p, effect, effect_name, detail)


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
    reference: Sample, window: Sample, labels: list[str], limits: Monitoring, seed: int
) -> list[Result]:
    """All tests of a window against the reference, with one Holm correction over them: false alarms
    at most `limits.alpha`.
    """
    alpha, embeddings = limits.alpha, (reference.embedding, window.embedding)
    results = []
    for name, values in reference.answers.items():
        results.append(_answer_test(name, values, window.answers[name], labels))
    for name in sorted(reference.signals.keys() & window.signals.keys()):
        results.append(scalar_test(f"signal {name}", reference.signals[name], window.signals[name]))
    if EMBEDDING and all(side is not None for side in embeddings):
        # The smallest p-value that permutations can give must survive the correction.
        permutations = math.ceil(2 * (len(results) + 1) / alpha) - 1
        test, rng = importlib.import_module(EMBEDDING.name).mmd_test, np.random.default_rng(seed)
        results.append(test(*embeddings, permutations, rng, limits.max_reference))
    adjusted = holm([result.p for result in results])
    return [
        replace(result, adjusted=p, alarm=p <= alpha)
        for result, p in zip(results, adjusted, strict=True)
    ]


def _answer_test(
    name: str, reference: NDArray[Any], window: NDArray[Any], labels: list[str]
) -> Result:
    """Test of what was answered: see `Sample` for names and shapes."""
    if name == "probabilities":
        return softmax_test(reference, window, labels)
    if name == "label":
        counts = [np.bincount(side, minlength=len(labels)) for side in (reference, window)]
        return shares_test("predicted labels", counts, labels)
    return scalar_test(f"predicted {name}s", reference, window)

"""M12: is any part of the data served clearly worse than the whole? Declared parts, and parts that
a search finds.
"""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..settings import Slices
from ..types import Floats
from .verdict import Verdict, not_declared, outcome

Masks = dict[str, NDArray[np.bool_]]
BINS = 4  # of a column of numbers
MAX_CLUSTERS = 12  # of embeddings
MAX_SLICES = 500  # that are searched
MAX_ROWS = 10_000  # more rows find no slice that matters and these do not
SHUFFLES, CHUNK = 1000, 100
TINY = 1e-9  # the error of losses that do not differ


def conditions(column: NDArray[Any]) -> Masks:
    """Masks [n] by condition: quarters of a column of numbers, values of one of text or of at most
    four numbers.
    """
    if column.dtype.kind not in "biuf":
        text = column.astype(str)
        # More than that are keys, or hashes of numbers.
        return {f"= {value}": text == value for value in np.unique(text)[:MAX_SLICES]}
    number = column.astype(np.float64)
    missing = np.isnan(number)
    values = np.unique(number[~missing])
    if len(values) <= BINS:
        masks = {f"= {value:g}": number == value for value in values}
        return masks | {"missing": missing}
    edges = np.unique(np.quantile(number[~missing], np.linspace(0, 1, BINS + 1)))
    place = np.clip(np.searchsorted(edges, number, side="right") - 1, 0, len(edges) - 2)
    ranges = enumerate(pairwise(edges))
    masks = {f"from {a:.4g} to {b:.4g}": (place == i) & ~missing for i, (a, b) in ranges}
    return masks | {"missing": missing}


def clusters(embedding: Floats, min_size: int) -> Masks:
    """Masks [n] of k-means clusters of embeddings [n, e], where rows that the model sees alike fail
    together.
    """
    from sklearn.cluster import KMeans

    count = min(MAX_CLUSTERS, len(embedding) // (2 * min_size))
    if count < 2:
        return {}
    label = KMeans(count, n_init=1, random_state=0).fit_predict(embedding)
    return {f"cluster {i} of embeddings": label == i for i in range(count)}


def distinct(masks: Masks, others: Masks) -> Masks:
    """The first of those with the same rows, and none that has the rows of another, or all."""
    names = {mask.tobytes(): name for name, mask in reversed({**others, **masks}.items())}
    return {n: m for n, m in masks.items() if names[m.tobytes()] == n and not m.all()}


def candidates(columns: dict[str, NDArray[Any]], embedding: Floats | None, min_size: int) -> Masks:
    """The slices of min_size rows or more that are searched: single conditions, pairs of them, and
    clusters.

    None is chosen by its loss, so that the test may shuffle losses; of too many, the largest are
    kept.
    """
    single = []
    for name, column in columns.items():
        for condition, mask in conditions(column).items():
            if mask.sum() >= min_size:
                single.append((name, f"{name} {condition}", mask))
    masks = {words: mask for _, words, mask in single}
    for (name, words, mask), (other, other_words, other_mask) in combinations(single, 2):
        both = mask & other_mask
        size = both.sum()
        if name != other and min_size <= size < min(mask.sum(), other_mask.sum()):
            masks[f"{words} and {other_words}"] = both
    masks |= clusters(embedding, min_size) if embedding is not None else {}
    return dict(sorted(masks.items(), key=lambda item: -int(item[1].sum()))[:MAX_SLICES])


def least_gaps(losses: Floats, masks: Masks, alpha: float) -> Floats:
    """For each of the masks [n], by how much its mean loss [n] at least exceeds that of all rows,
    at 1 - alpha for all.

    What chance alone gives the largest of so many gaps, in its standard errors, is what shuffles of
    the losses give it (max-T: Westfall and Young 1993).
    """
    matrix = np.array(list(masks.values()), dtype=np.float32)
    n, size = len(losses), matrix.sum(axis=1)
    centred = (losses - losses.mean()).astype(np.float32)
    gap = matrix @ centred / size
    error = np.maximum(np.sqrt((1 - size / n) / size) * centred.std(), TINY)
    largest, rng = [], np.random.default_rng(0)
    for _ in range(SHUFFLES // CHUNK):
        shuffled = rng.permuted(np.tile(centred, (CHUNK, 1)), axis=1)
        largest.append((matrix @ shuffled.T / (size * error)[:, None]).max(axis=0))
    return np.asarray(gap - np.quantile(np.concatenate(largest), 1 - alpha) * error)


def interval(losses: Floats, alpha: float) -> tuple[float, float]:
    """Interval of the mean of losses [n]: Wilson's for 0 and 1, else of a gamma distribution.

    The latter is exact for squares of normal errors, whose sum is chi-squared.
    """
    n, mean = len(losses), float(losses.mean())
    if np.isin(losses, (0, 1)).all():
        found = stats.binomtest(int(losses.sum()), n).proportion_ci(1 - alpha, method="wilson")
        return float(found.low), float(found.high)
    freedom = 2 * n * mean**2 / float(losses.var())
    low, high = freedom * mean / stats.chi2.ppf([1 - alpha / 2, alpha / 2], freedom)
    return float(low), float(high)


def table(
    losses: Floats, declared: Masks, searched: Masks, settings: Slices
) -> list[dict[str, Any]]:
    """Declared slices, and of those searched the worst that are worse than the whole, worst first;
    intervals of the loss are Bonferroni-corrected.

    Each family takes half of alpha where there are two, so that a wide search costs a declared
    slice hardly anything.
    """
    alpha = settings.alpha / (2 if declared and searched else 1)
    families = [
        _worst(losses, declared, alpha, len(declared)),
        _worst(losses, searched, alpha, settings.searched),
    ]
    count, rows = sum(map(len, families)), []
    for is_declared, family in zip((True, False), families, strict=True):
        for least, name, mask in family:
            loss = float(losses[mask].mean())
            if not is_declared and loss <= losses.mean():
                continue
            low, high = interval(losses[mask], settings.alpha / count)
            row = {"slice": name, "rows": int(mask.sum()), "loss": loss, "score": 1 - loss}
            row |= {"low": low, "high": high, "least_gap": least, "declared": is_declared}
            rows.append(row)
    return sorted(rows, key=lambda row: -row["loss"])


def _worst(
    losses: Floats, masks: Masks, alpha: float, count: int
) -> list[tuple[float, str, NDArray[np.bool_]]]:
    """So many slices with the largest gap that is surely there: gap, name, rows [n]."""
    gaps = least_gaps(losses, masks, alpha).tolist() if masks else []
    rows = [(gap, name, mask) for gap, (name, mask) in zip(gaps, masks.items(), strict=True)]
    return sorted(rows, key=lambda row: -row[0])[:count]


def judge(
    losses: Floats,
    declared: Masks,
    columns: dict[str, NDArray[Any]],
    embedding: Floats | None,
    settings: Slices,
) -> Verdict:
    """Whether the mean loss [n] of some slice surely exceeds that of all rows by more than the
    limit.
    """
    title, limit, overall = "Slices", settings.max_gap, float(losses.mean())
    if not declared and not columns and embedding is None:
        return not_declared("M12", title)
    sample = np.sort(np.random.default_rng(0).permutation(len(losses))[:MAX_ROWS])
    losses, embedding = losses[sample], None if embedding is None else embedding[sample]
    masks = {name: mask[sample] for name, mask in declared.items()}
    masks = {name: mask for name, mask in masks.items() if mask.sum() >= settings.min_size}
    large = distinct(masks, {})
    parts = candidates({n: c[sample] for n, c in columns.items()}, embedding, settings.min_size)
    searched = distinct(parts, large)
    rows = table(losses, large, searched, settings)
    if not large and not searched:
        why = f"no slice has {settings.min_size} rows"
        return Verdict("M12", title, "cannot tell", None, limit, why)
    worse = [row for row in rows if row["loss"] > overall]
    worst = max(worse, key=lambda row: float(row["least_gap"]), default=None)
    gap, why = 0.0, "no group is served worse than chance explains"
    if worst:
        gap = max(0.0, worst["least_gap"])
        if gap:
            why = f"{worst['slice']} is served worse, by {gap:.4f} more than chance explains"
        why += f"; mean loss of {worst['slice']} {worst['loss']:.3f} on {worst['rows']} rows, "
        why += f"{overall:.3f} over all"
    details = {"slices": rows, "overall": overall, "searched": len(searched)}
    return Verdict("M12", title, outcome(gap <= limit), round(gap, 4), limit, why, details)

"""M12: is any part of the data served clearly worse than the whole? Declared parts, and parts that
a search finds.
"""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..settings import Slices
from .verdict import Verdict, not_declared, outcome

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Masks = dict[str, Bools]
BINS, MAX_CLUSTERS, MAX_SLICES = (
    4,
    12,
    500,
)  # quarters of a column; clusters of embeddings; slices that are searched
MAX_ROWS = 10_000  # more rows find no slice that matters and these do not
SHUFFLES, CHUNK = 1000, 100
TINY = 1e-9  # the error of losses that do not differ


def conditions(column: NDArray[Any]) -> Masks:
    """Masks [n] by condition: quarters of a column of numbers, values of one of text or of at most
    four numbers.
    """
    if column.dtype.kind not in "biuf":
        text = column.astype(str)
        return {f"= {value}": text == value for value in np.unique(text)}
    number = column.astype(np.float64)
    known = number[~np.isnan(number)]
    values = np.unique(known)
    if len(values) <= BINS:
        found = {f"= {value:g}": number == value for value in values}
    else:
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
        place = np.clip(np.searchsorted(edges, number, side="right") - 1, 0, len(edges) - 2)
        ranges = enumerate(pairwise(edges))
        found = {
            f"from {a:.4g} to {b:.4g}": (place == i) & ~np.isnan(number) for i, (a, b) in ranges
        }
    return found | {"missing": np.isnan(number)}


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


def candidates(columns: dict[str, NDArray[Any]], embedding: Floats | None, min_size: int) -> Masks:
    """The slices of min_size rows or more that are searched: single conditions, pairs of them, and
    clusters.

    None is chosen by its loss, so that the test may shuffle losses; of too many, the largest are
    kept.
    """
    single = {
        (name, condition): mask
        for name, column in columns.items()
        for condition, mask in conditions(column).items()
        if mask.sum() >= min_size
    }
    keys, found = list(single), {" ".join(key): mask for key, mask in single.items()}
    if keys:
        matrix = np.array(list(single.values()), dtype=np.float32)
        shared = matrix @ matrix.T
        for i, j in combinations(range(len(keys)), 2):
            if keys[i][0] != keys[j][0] and min_size <= shared[i, j] < min(
                shared[i, i], shared[j, j]
            ):
                found[f"{' '.join(keys[i])} and {' '.join(keys[j])}"] = (
                    single[keys[i]] & single[keys[j]]
                )
    found |= clusters(embedding, min_size) if embedding is not None else {}
    return dict(sorted(found.items(), key=lambda item: -int(item[1].sum()))[:MAX_SLICES])


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
    """Declared slices and the worst of those searched, worst first; intervals of the loss are
    Bonferroni-corrected.

    Each family takes half of alpha where there are two, so that a wide search costs a declared
    slice hardly anything.
    """
    rows, alpha = [], settings.alpha / (2 if declared and searched else 1)
    for masks, keep in ((declared, len(declared)), (searched, settings.searched)):
        least = least_gaps(losses, masks, alpha) if masks else np.empty(0)
        worst = sorted(zip(least.tolist(), masks.items(), strict=True), key=lambda pair: -pair[0])[
            :keep
        ]
        rows += [(gap, name, mask, masks is declared) for gap, (name, mask) in worst]
    found = []
    for gap, name, mask, is_declared in rows:
        loss, (low, high) = (
            float(losses[mask].mean()),
            interval(losses[mask], settings.alpha / len(rows)),
        )
        row = {
            "slice": name,
            "rows": int(mask.sum()),
            "loss": loss,
            "score": 1 - loss,
            "low": low,
            "high": high,
        }
        found.append(row | {"least_gap": gap, "declared": is_declared})
    return sorted(found, key=lambda row: -row["loss"])


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
    title, overall = "Slices", float(losses.mean())
    if not declared and not columns and embedding is None:
        return not_declared("M12", title)
    chosen = np.sort(np.random.default_rng(0).permutation(len(losses))[:MAX_ROWS])
    losses, embedding = losses[chosen], None if embedding is None else embedding[chosen]
    large = {
        name: mask[chosen]
        for name, mask in declared.items()
        if mask[chosen].sum() >= settings.min_size
    }
    searched = candidates({n: c[chosen] for n, c in columns.items()}, embedding, settings.min_size)
    rows = table(losses, large, searched, settings)
    if not rows:
        return Verdict(
            "M12",
            title,
            "cannot tell",
            None,
            settings.max_gap,
            f"no slice has {settings.min_size} rows",
        )
    worst = max(rows, key=lambda row: float(row["least_gap"]))
    gap = max(0.0, worst["least_gap"])
    why = f"worst is {worst['slice']}: mean loss {worst['loss']:.3f} on {worst['rows']} rows, {overall:.3f} over all"
    why += (
        f"; {gap:.3f} of the difference is more than chance"
        if gap
        else ", no more than chance gives"
    )
    details = {"slices": rows, "overall": overall, "searched": len(searched)}
    return Verdict(
        "M12",
        title,
        outcome(gap <= settings.max_gap),
        round(gap, 4),
        settings.max_gap,
        why,
        details,
    )

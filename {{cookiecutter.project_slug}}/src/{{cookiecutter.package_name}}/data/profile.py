"""A small description of a snapshot, and the change from the last one that was accepted.

The change of a column is the population stability index, Σ (q - p) ln(q / p) over bins with shares
p before and q now. Where nothing changed it is about (1/n + 1/m) χ² with bins - 1 degrees of
freedom (Yurdakul and Naranjo 2020, Statistical properties of the population stability index, J.
Risk Model Validation): below that, a change is chance.
"""

import itertools
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..settings import Data
from ..task.features import Features, encode, signals

SAMPLE = 20_000  # rows described, evenly spaced: quantiles need no more
BINS, VALUES = 10, 50
CHANCE = 0.001  # of a false alarm per snapshot
MISSING, OTHER = "(missing)", "(other)"


def describe(rows: pd.DataFrame, data: Data) -> pd.DataFrame:
    """What can be compared: columns of numbers and texts, the label, and the scalars of what the
    rows encode to.
    """
    shown = rows.drop(columns=["id", "content"], errors="ignore").select_dtypes(
        ["number", "bool", "str", "category"]
    )
    features = Features.model_validate(data.features)
    scalars = signals(encode(rows.reset_index(drop=True), features), features)
    return shown.assign(**{n: v for n, v in scalars.items() if n not in shown and v.ndim == 1})


def profile(sample: pd.DataFrame) -> dict[str, Any]:
    """Per column, its bins and the share of rows in each; the bins of a column of numbers are its
    deciles.
    """
    columns = {}
    for name in sample:
        bins = _bins(sample[name])
        if bins is not None:
            columns[str(name)] = {"bins": bins, "shares": _shares(sample[name], bins)}
    return {"rows": len(sample), "columns": columns}


def _text(values: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return values.dropna().astype(str)
    return values.dropna().map("{:.6g}".format)


def _bins(values: pd.Series) -> list[Any] | None:
    """Inner edges of numbers, or the most frequent values; None for a column of keys or free text."""
    different = values.nunique()
    if different > VALUES // 2 and pd.api.types.is_numeric_dtype(values):
        finite = values[np.isfinite(values)]
        return [float(e) for e in np.unique(np.quantile(finite, np.arange(1, BINS) / BINS))]
    if different > max(VALUES // 2, len(values) / 2):
        return None
    return [str(v) for v in _text(values).value_counts().index[:VALUES]]


def _names(bins: list[Any]) -> list[str]:
    if bins and isinstance(bins[0], float):
        inner = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(bins)]
        return [f"up to {bins[0]:.3g}", *inner, f"above {bins[-1]:.3g}", MISSING]
    return [*bins, OTHER, MISSING]


def _shares(values: pd.Series, bins: list[Any]) -> list[float]:
    """Share of the rows in each bin, [len(_names(bins))]."""
    missing = values.isna().to_numpy()
    if bins and isinstance(bins[0], float):
        numbers = pd.to_numeric(values, errors="coerce")
        index = np.searchsorted(bins, numbers[~missing].to_numpy(np.float64))
    else:
        found = pd.Index(bins, dtype=object).get_indexer(_text(values).astype(object))
        index = np.where(found < 0, len(bins), found)
    counts = np.bincount(index, minlength=len(_names(bins)) - 1)
    return [float(c) / max(1, len(values)) for c in (*counts, missing.sum())]


def psi(before: NDArray[np.float64], n: int, now: NDArray[np.float64], m: int) -> float:
    """Population stability index of shares [b] of n rows and [b] of m rows; half a row is added to
    each bin.
    """
    p, q = ((share * k + 0.5) / (k + 0.5 * len(share)) for share, k in ((before, n), (now, m)))
    return float(((q - p) * np.log(q / p)).sum())


def drift(before: dict[str, Any], sample: pd.DataFrame, limit: float) -> list[dict[str, Any]]:
    """Columns that both snapshots have, most changed first: index, limit (raised to what chance
    explains), verdict.
    """
    from scipy.stats import chi2

    shared = [name for name in before["columns"] if name in sample]
    found = []
    for name in shared:
        bins, old = before["columns"][name]["bins"], np.asarray(before["columns"][name]["shares"])
        new = np.asarray(_shares(sample[name], bins))
        used = (old > 0) | (new > 0)
        n, m = before["rows"], len(sample)
        chance = (1 / n + 1 / m) * float(chi2.ppf(1 - CHANCE / len(shared), max(1, used.sum() - 1)))
        index = psi(old[used], n, new[used], m)
        most = int(np.argmax(np.abs(new - old)))
        allowed = max(limit, chance)
        detail = f"{_names(bins)[most]}: {old[most]:.1%} → {new[most]:.1%}"
        found.append(
            {
                "column": name,
                "index": index,
                "limit": allowed,
                "ok": index <= allowed,
                "detail": detail,
            }
        )
    return sorted(found, key=lambda f: -f["index"] / f["limit"] if f["limit"] else 0.0)

"""Checks over all rows, and the change since the last snapshot that was accepted.

`docs/data_checks.md` names these checks and the faults that each one catches.

The change of a column is the population stability index, Σ (q - p) ln(q / p) over bins with shares
p before and q now. Where nothing changed it is about (1/n + 1/m) χ² with bins - 1 degrees of
freedom (Yurdakul and Naranjo 2020, Statistical properties of the population stability index, J.
Risk Model Validation): below that, a change is chance.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..modeling import kinds
from ..settings import Data
from ..task.features import Features, encode, signals

EXAMPLES = 20  # row numbers shown per check; all are counted
BINS, VALUES = 10, 50
CHANCE = 0.001  # of a false alarm per snapshot
MISSING, OTHER = "(missing)", "(other)"
Check = dict[str, Any]


def check(
    name: str,
    number: float,
    limit: float,
    detail: str = "",
    rows: Iterable[int] = (),
    least: bool = False,
) -> Check:
    """One line of the report: the number, the rule, the verdict, and the first rows that it is
    about.
    """
    return {
        "check": name,
        "found": round(float(number), 6),
        "rule": f"at {'least' if least else 'most'} {limit:g}",
        "ok": bool(number >= limit if least else number <= limit),
        "detail": detail,
        "rows": [int(row) for row in rows][:EXAMPLES],
    }


def statistics(rows: pd.DataFrame) -> pd.DataFrame:
    """Type, number of missing values, lowest and highest number of each column."""
    numbers = rows.select_dtypes("number")
    columns = {"type": rows.dtypes.astype(str), "missing": rows.isna().sum()}
    columns |= {"lowest": numbers.min(), "highest": numbers.max()}
    return pd.DataFrame(columns, index=rows.columns)


def merged(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """The statistics of a whole from those of its parts."""
    how = {"type": "first", "missing": "sum", "lowest": "min", "highest": "max"}
    return pd.concat(parts).groupby(level=0, sort=False).agg(how)


def judge(keys: pd.DataFrame, columns: pd.DataFrame, data: Data) -> list[Check]:
    """Checks of `id`, `content` and `label` of all rows, as far as they are there, and of the
    statistics of all columns.
    """
    limits, n = data.checks, max(1, len(keys))
    missing = columns["missing"].drop("label", errors="ignore") / n
    worst = f"column {missing.idxmax()}"
    results = [
        check("rows", len(keys), 1, least=True),
        check("missing values", missing.max(), limits.max_missing, worst),
    ]
    if not {"id", "content", "label"} <= {*keys}:
        return results
    repeated = keys.index[keys["id"].duplicated()]
    no_label = keys.index[keys["label"].isna()]
    again = keys.index[keys["content"].duplicated()]
    answers = keys[["content", "label"]].dropna().drop_duplicates()
    against = answers.index[answers["content"].duplicated()]
    spread, number, least, detail = kinds.of(data.kind).label_spread(keys["label"], data)
    equal, contradiction = "equal but for the key", "equal rows with different labels"
    return [
        *results,
        check("repeated keys", len(repeated), 0, "", repeated),
        check("unlabeled rows", len(no_label) / n, limits.max_unlabeled, "", no_label),
        check("duplicate rows", len(again) / n, limits.max_duplicates, equal, again),
        check(contradiction, len(against) / n, limits.max_conflicts, "", against),
        check(spread, number, least, detail, least=True),
    ]


def describe(rows: pd.DataFrame, data: Data) -> pd.DataFrame:
    """What can be compared: columns of numbers and texts, the label, and the scalars of what the
    rows encode to.
    """
    features = Features.model_validate(data.features)
    scalars = signals(encode(rows.reset_index(drop=True), features), features)
    # Not what rows are split by, nor dates: time goes on.
    columns = rows[[name for name in rows if name in scalars or name == "label"]]
    others = {name: v for name, v in scalars.items() if name not in columns and v.ndim == 1}
    return columns.assign(**others)


def profile(sample: pd.DataFrame) -> dict[str, Any]:
    """Per column, its bins and the share of rows in each; the bins of a column of numbers are its
    deciles. Columns of keys or free text are left out.
    """
    columns = {}
    for name, values in sample.items():
        bins = _bins(values)
        if bins:
            columns[str(name)] = {"bins": bins, "shares": _shares(values, bins).to_dict()}
    return {"rows": len(sample), "columns": columns}


def _bins(values: pd.Series) -> list[Any]:
    """Inner edges of numbers, or frequent values; none for a column of keys or free text."""
    different = values.nunique()
    if different > VALUES // 2 and pd.api.types.is_numeric_dtype(values):
        finite = values[np.isfinite(values)]
        return [*map(float, np.unique(np.quantile(finite, np.arange(1, BINS) / BINS)))]
    if different > max(VALUES // 2, len(values) / 2):
        return []
    return [*values.astype("str").value_counts().index[:VALUES]]


def _shares(values: pd.Series, bins: list[Any]) -> pd.Series:
    """Share of the rows in each bin, by its name."""
    if isinstance(bins[0], float):
        numbers = pd.to_numeric(values, errors="coerce")
        names = pd.cut(numbers, [-np.inf, *bins, np.inf], include_lowest=True).astype("str")
    else:
        text = values.astype("str")
        names = text.where(text.isin(bins), OTHER)
    return names.where(values.notna(), MISSING).value_counts(normalize=True)


def psi(before: NDArray[np.float64], n: int, now: NDArray[np.float64], m: int) -> float:
    """Population stability index of shares [b] of n rows and [b] of m rows; half a row is added to
    each bin.
    """
    p = (before * n + 0.5) / (n + 0.5 * len(before))
    q = (now * m + 0.5) / (m + 0.5 * len(now))
    return float(((q - p) * np.log(q / p)).sum())


def drift(before: dict[str, Any], sample: pd.DataFrame, limit: float) -> list[Check]:
    """One check per column that both snapshots have, most changed first; the limit is raised to
    what chance explains.
    """
    from scipy.stats import chi2

    n, m = before["rows"], len(sample)
    names = [name for name in before["columns"] if name in sample]
    results = []
    for name in names:
        column = before["columns"][name]
        now = _shares(sample[name], column["bins"])
        shares = pd.DataFrame({"old": column["shares"], "new": now}).fillna(0.0)
        index = psi(shares["old"].to_numpy(), n, shares["new"].to_numpy(), m)
        quantile = chi2.ppf(1 - CHANCE / len(names), max(1, len(shares) - 1))
        most = (shares["new"] - shares["old"]).abs().idxmax()
        old, new = shares.loc[most]
        detail = f"{most}: {old:.1%} → {new:.1%}"
        results.append(check(name, index, max(limit, (1 / n + 1 / m) * quantile), detail))
    return sorted(results, key=lambda result: (result["ok"], -result["found"]))


def drift_check(columns: list[Check], limit: float) -> Check:
    """The check of the column that changed most."""
    name = "drift since the last snapshot"
    if not columns:
        return check(name, 0.0, limit, "nothing to compare with")
    worst = columns[0]
    remedy = "" if worst["ok"] else "; meant? delete reports/profile.json"
    return {**worst, "check": name, "detail": f"{worst['check']}, {worst['detail']}{remedy}"}

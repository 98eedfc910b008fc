"""Checks over all rows. What they need is gathered chunk by chunk: 8 bytes per row for each thing
to compare.

`docs/data_checks.md` names these checks, what they cost in memory, and the faults that each one
catches.
"""

from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from numpy.typing import NDArray

from ..settings import Data

EXAMPLES = 20  # row numbers shown per check; all are counted
Check = dict[str, Any]


def label_column(data: Data) -> pa.Column:
    """The rule for labels: a known class, or a finite number within the declared range; empty is
    counted apart.
    """
    if data.kind != "regression":
        return pa.Column(str, pa.Check.isin(data.labels), nullable=True)
    rules = [pa.Check(lambda s: np.isfinite(s), name="finite", error="a finite number")]
    if data.checks.label_range:
        rules.append(pa.Check.in_range(*data.checks.label_range))
    return pa.Column(float, rules, nullable=True)


def hashes(values: pd.Series | pd.DataFrame) -> NDArray[np.uint64]:
    """64-bit hash of each value or row, [n]; of n different ones, two collide with chance n² /
    2^65.
    """
    return np.asarray(
        pd.util.hash_pandas_object(values, index=False, categorize=False), dtype=np.uint64
    )


def repeats(keys: list[NDArray[np.uint64]]) -> NDArray[np.int64]:
    """Numbers of all rows whose key other rows have too, from the keys of each chunk; takes 8 bytes
    per row to sort.
    """
    ordered = np.sort(np.concatenate([np.empty(0, np.uint64), *keys]))
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return np.empty(0, np.int64)
    return np.concatenate(
        [np.flatnonzero(np.isin(k, twice)) + i for i, k in zip(_starts(keys), keys, strict=True)]
    )


def at(parts: list[NDArray[Any]], rows: NDArray[np.int64]) -> NDArray[Any]:
    """Values of the rows with these ascending numbers, out of the values of each chunk."""
    inside = [
        p[rows[(rows >= i) & (rows < i + len(p))] - i]
        for i, p in zip(_starts(parts), parts, strict=True)
    ]
    return np.concatenate(inside) if inside else np.empty(0)


def _starts(parts: list[NDArray[Any]]) -> list[int]:
    return [0, *np.cumsum([len(part) for part in parts]).tolist()][:-1]


def later(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether an earlier one of these keys is equal, [n]."""
    return np.asarray(pd.Series(keys).duplicated(), dtype=bool)


def conflicts(content: NDArray[np.uint64], label: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of the rows that have the content of another row and another label."""
    order = np.lexsort((label, content))
    first, second = order[:-1], order[1:]
    return np.sort(second[(content[first] == content[second]) & (label[first] != label[second])])


def codes(label: pd.Series, data: Data) -> NDArray[Any]:
    """Index of the class, -1 for none, or the value, NaN for none; [n]."""
    if data.kind == "regression":
        return np.asarray(pd.to_numeric(label, errors="coerce"), dtype=np.float64)
    return np.asarray(pd.Index(data.labels).get_indexer(label), dtype=np.int16)


def check(
    name: str, found: float, limit: float, detail: str = "", rows: Any = (), least: bool = False
) -> Check:
    """One line of the report: what was found, the rule, the verdict, and the first rows that it is
    about.
    """
    return {
        "check": name,
        "found": round(found, 6),
        "rule": f"at {'least' if least else 'most'} {limit:g}",
        "ok": bool(found >= limit if least else found <= limit),
        "detail": detail,
        "rows": [int(row) for row in rows[:EXAMPLES]],
    }


class Column:
    """Counts of one column over all chunks."""

    def __init__(self, kind: str) -> None:
        self.kind, self.missing, self.rows = kind, 0, np.empty(0, np.int64)
        self.lowest: float | None = None
        self.highest: float | None = None

    def add(self, values: pd.Series, start: int) -> None:
        missing = np.flatnonzero(values.isna().to_numpy())
        self.missing += len(missing)
        self.rows = np.concatenate([self.rows, missing + start])[:EXAMPLES]
        if pd.api.types.is_numeric_dtype(values) and len(missing) < len(values):
            low, high = float(values.min()), float(values.max())
            self.lowest = low if self.lowest is None else min(self.lowest, low)
            self.highest = high if self.highest is None else max(self.highest, high)

    def statistics(self) -> dict[str, Any]:
        return {
            "type": self.kind,
            "missing": self.missing,
            "lowest": self.lowest,
            "highest": self.highest,
        }


class Whole:
    """Gathers, then judges: missing values, labels, duplicates and contradictions over the whole
    snapshot.
    """

    def __init__(self, data: Data) -> None:
        self.data, self.rows = data, 0
        self.columns: dict[str, Column] = {}
        self.content: list[NDArray[np.uint64]] = []
        self.label: list[
            NDArray[Any]
        ] = []  # codes of classes, -1 for none; or values, NaN for none

    def add(self, rows: pd.DataFrame, start: int) -> None:
        for name in rows:
            self.columns.setdefault(str(name), Column(str(rows[name].dtype))).add(rows[name], start)
        if {"content", "label"} <= {*rows}:
            self.content.append(hashes(rows["content"]))
            self.label.append(codes(rows["label"], self.data))
        self.rows += len(rows)

    def labels(self) -> dict[str, Any]:
        """Counts per class, or quantiles of the values."""
        if self.data.kind == "regression":
            label = np.concatenate([np.empty(0), *self.label])
            known = label[np.isfinite(label)]
            marks = (0, 5, 25, 50, 75, 95, 100)
            return {f"{mark} %": float(np.percentile(known, mark)) for mark in marks if len(known)}
        names = self.data.labels
        counts = sum(
            (np.bincount(part[part >= 0], minlength=len(names)) for part in self.label),
            np.zeros(len(names)),
        )
        return {name: int(count) for name, count in zip(names, counts, strict=True)}

    def judge(self) -> list[Check]:
        limits, n = self.data.checks, max(1, self.rows)
        features = {name: c for name, c in self.columns.items() if name != "label"}
        worst = max(features, key=lambda name: features[name].missing, default="")
        empty = features[worst] if worst else Column("")
        found = [
            check("rows", self.rows, 1, least=True),
            check(
                "missing values",
                empty.missing / n,
                limits.max_missing,
                f"column {worst}",
                empty.rows,
            ),
        ]
        return found + (self._judge_labels(n) if self.label else [])

    def _judge_labels(self, n: int) -> list[Check]:
        limits, unlabeled = self.data.checks, self.columns["label"]
        rows = repeats(self.content)
        content, label = at(self.content, rows), at(self.label, rows)
        known = np.flatnonzero(np.isfinite(label) if self.data.kind == "regression" else label >= 0)
        again, against = rows[later(content)], rows[known[conflicts(content[known], label[known])]]
        found = [
            check(
                "unlabeled rows", unlabeled.missing / n, limits.max_unlabeled, "", unlabeled.rows
            ),
            check(
                "duplicate rows",
                len(again) / n,
                limits.max_duplicates,
                "equal but for the key",
                again,
            ),
            check(
                "equal rows with different labels",
                len(against) / n,
                limits.max_conflicts,
                "",
                against,
            ),
        ]
        if self.data.kind == "regression":
            values = np.concatenate(self.label)
            spread = (
                float(np.std(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
            )
            return [
                *found,
                check("standard deviation of the labels", spread, 1e-12, "", (), least=True),
            ]
        counts = self.labels()
        rarest = min(counts, key=lambda name: counts[name])
        share = counts[rarest] / max(1, sum(counts.values()))
        return [
            *found,
            check(
                "share of the smallest class", share, limits.min_class_share, rarest, (), least=True
            ),
        ]

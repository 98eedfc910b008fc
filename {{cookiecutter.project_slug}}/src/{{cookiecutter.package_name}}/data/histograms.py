"""What each column holds, as bars for the page of validation."""

from typing import Any

import numpy as np
import pandas as pd

from ..settings import Data

BARS, LISTED = 20, 8  # of numbers, and values of text with a bar of their own


def plain(rows: pd.DataFrame, hidden: list[str]) -> pd.DataFrame:
    """The columns that bars may show; of files, their sizes."""
    columns = rows.drop(columns=["id", "content", *hidden], errors="ignore")
    for name in columns.select_dtypes("object", "str"):
        sizes = columns[name].map(lambda v: len(v) if isinstance(v, bytes) else None)
        columns = columns.drop(columns=name).assign(**{f"{name}: bytes": sizes})
    return columns


def bars(columns: list[pd.DataFrame], data: Data) -> list[dict[str, Any]]:
    """Per column `bars`, [name, share] each, and the ends `low` and `high` of numbers and dates."""
    dates: dict[str, Any] = data.features.get("dates", {})
    results = []
    for name, values in pd.concat([pd.DataFrame(), *columns]).items():
        form = dates.get(str(name), {}).get("format") or "ISO8601"
        results.append({"column": str(name), **histogram(values.dropna(), form)})
    return results


def histogram(values: pd.Series, form: str) -> dict[str, Any]:
    """Bins of numbers and of dates; of text the most frequent values, if some come twice."""
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.astype(float)
        numbers = numbers[np.isfinite(numbers)]
        ends = [f"{end:.4g}" for end in (numbers.min(), numbers.max())]
    else:
        text = values.astype("str")
        moments = pd.to_datetime(text, format=form, utc=True, errors="coerce")
        if text.nunique() <= LISTED or moments.isna().any():
            shares = text.value_counts(normalize=True)
            rare = len(shares) > LISTED and shares.iloc[0] * len(text) < 3
            return {"bars": [] if rare else [*shares.head(LISTED).items()]}
        numbers = moments.astype("int64")
        ends = [str(end.date()) for end in (moments.min(), moments.max())]
    counts, _ = np.histogram(numbers, BARS)
    return {"low": ends[0], "high": ends[1], "bars": [["", int(count)] for count in counts]}

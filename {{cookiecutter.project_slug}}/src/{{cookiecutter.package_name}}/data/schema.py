"""The columns of the snapshot: the task's own between the key, what the split goes by, the label
and the hash of the content.
"""

import re

import pandas as pd
import pandera.pandas as pa

from .. import personal
from ..modeling import kinds
from ..settings import Data
from ..task.schema import columns

AROUND = ("id", "label", "content")  # the columns that are no features


def schema(data: Data) -> pa.DataFrameSchema:
    """Columns, in order, and no others; `label` may be empty: the share of unlabeled rows is a
    check of its own.
    """
    rules = {
        "id": pa.Column(str, pa.Check.str_length(1, 200)),
        **columns(data),
        **{name: pa.Column(nullable=True) for name in split_columns(data)},
        "label": kinds.of(data.kind).label_column(data),
        "content": pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{64}$")),
    }
    if unknown := sorted(data.features.get("personal", {}).keys() - rules.keys()):
        raise ValueError(f"data.features.personal names no columns: {unknown}: it has {[*rules]}")
    for name in personal.marks(data.features):
        for check in rules[name].checks:
            check.error = check.name  # the rule's words may list the values
    return pa.DataFrameSchema(rules, strict=True, ordered=True)


def split_columns(data: Data) -> list[str]:
    """Columns of the snapshot that rows are split by and that are no features: no model sees them,
    and no request has them.
    """
    by = [data.split.key, *([data.split.time.column] if data.split.time else [])]
    return [name for name in dict.fromkeys(by) if name not in (*AROUND, *columns(data), "near")]


def holds_numbers(rule: pa.Column) -> bool:
    """Whether a column of the schema is one of numbers."""
    kind = rule.dtype.type if rule.dtype else None
    return bool(pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind))


def holds_text(rule: pa.Column) -> bool:
    """Whether a column of the schema is one of text."""
    return rule.dtype is not None and isinstance(rule.dtype.type, pd.StringDtype)


def numbers(values: pd.Series, decimal: str, thousands: str) -> pd.Series:
    """float64, NaN for what is no number; text is read with these decimal and thousands signs."""
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(float)
    text = values.astype("str").str.strip()
    if (decimal, thousands) != (".", ""):
        groups = rf"|\d\d?\d?({re.escape(thousands)}\d\d\d)+" if thousands else ""
        number = rf"[+-]?(\d+{groups})?({re.escape(decimal)}\d*)?([eE][+-]?\d+)?"
        text = text.where(text.str.fullmatch(number))
        text = text.str.replace(thousands, "", regex=False) if thousands else text
        text = text.str.replace(decimal, ".", regex=False)
    return pd.to_numeric(text, errors="coerce").astype(float)


def without_missing(values: pd.Series, rule: pa.Column, data: Data) -> pd.Series:
    """The words of `data.missing` as missing values, unless the column's rule declares them."""
    declared = (rule.metadata or {}).get("values", [])
    words = [word for word in data.missing if word not in declared]
    return values.mask(values.isin(words)) if words else values

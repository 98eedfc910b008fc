"""What a valid row is, as the configuration says. All rules are checked on all rows and reported
together.
"""

from functools import partial

import pandas as pd
import pandera.pandas as pa

from ..settings import Data
from .dates import Dates
from .features import Features

NEAR = 100  # rows are near-duplicates when all numbers agree to a hundredth of their range


def columns(data: Data) -> dict[str, pa.Column]:
    """Columns of the features, in order; `data/schema.py` adds key, label and content hash."""
    features = Features.model_validate(data.features)
    columns = {}
    for name, (low, high) in features.numeric.items():
        between = pa.Check.in_range(low, high)
        columns[name] = pa.Column(float, between, nullable=name in features.optional)
    for name, values in features.categorical.items():
        listed = [] if name in features.others else [pa.Check.isin(values)]
        may_miss, metadata = name in features.optional, {"values": values}
        columns[name] = pa.Column(str, listed, nullable=may_miss, metadata=metadata)
    for name, dates in features.dates.items():
        read = partial(is_date, dates=dates)
        rule = pa.Check(read, element_wise=True, name="date", error=f"a date: {dates}")
        columns[name] = pa.Column(str, rule, nullable=name in features.optional)
    return columns


def is_date(text: str, dates: Dates) -> bool:
    """Whether a text is a date as the configuration says."""
    try:
        dates.read(text)
    except ValueError:
        return False
    return True


def near_key(rows: pd.DataFrame, data: Data) -> pd.Series:
    """A number per row [n], equal for near-duplicates: all numbers in the same hundredth of their
    range.
    """
    features = Features.model_validate(data.features)
    return near_hash(rows[features.names], features.numeric)


def near_hash(rows: pd.DataFrame, ranges: dict[str, tuple[float, float]]) -> pd.Series:
    """A number per row [n] that tells all columns apart, but numbers by the hundredth alone."""
    rounded = rows.copy()
    for name, (low, high) in ranges.items():
        rounded[name] = ((rows[name] - low) / (high - low) * NEAR).round()
    return pd.util.hash_pandas_object(rounded, index=False)

"""What a valid row is, as the configuration says. All rules are checked on all rows and reported
together.
"""

import pandas as pd
import pandera.pandas as pa

from ..settings import Data
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
        columns[name] = pa.Column(str, pa.Check.isin(values), nullable=name in features.optional)
    return columns


def near_key(rows: pd.DataFrame, data: Data) -> pd.Series:
    """A number per row [n], equal for near-duplicates: all numbers in the same hundredth of their
    range.
    """
    features = Features.model_validate(data.features)
    rounded = rows[features.names].copy()
    for name, (low, high) in features.numeric.items():
        rounded[name] = ((rows[name] - low) / (high - low) * NEAR).round()
    return pd.util.hash_pandas_object(rounded, index=False)

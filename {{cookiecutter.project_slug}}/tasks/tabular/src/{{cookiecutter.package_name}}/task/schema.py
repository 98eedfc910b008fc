"""What a valid row is, as the configuration says. All rules are checked on all rows and reported
together.
"""

import pandas as pd
import pandera.pandas as pa

from ..data.checks import label_column
from ..settings import Data
from .features import NOT_FEATURES, Features

NEAR = 100  # rows are near-duplicates when all numbers agree to a hundredth of their range


def schema(data: Data) -> pa.DataFrameSchema:
    """Columns, in order, and no others; `label` may be empty: the share of unlabeled rows is a
    check of its own.

    A column that the split goes by, such as a group or a date, stands after the features.
    """
    features = Features.model_validate(data.features)
    columns = {"id": pa.Column(str, pa.Check.str_length(1, 200), unique=True)}
    for name, (low, high) in features.numeric.items():
        columns[name] = pa.Column(
            float, pa.Check.in_range(low, high), nullable=name in features.optional
        )
    for name, values in features.categorical.items():
        columns[name] = pa.Column(str, pa.Check.isin(values), nullable=name in features.optional)
    for name in [data.split.key, *([data.split.time.column] if data.split.time else [])]:
        if name not in (*NOT_FEATURES, *features.names, "near"):
            columns[name] = pa.Column()
    columns["label"] = label_column(data)
    columns["content"] = pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{64}$"))
    return pa.DataFrameSchema(columns, strict=True, ordered=True)


def break_row(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with the second one made invalid, for tests: its first feature is out of range,
    or unknown.
    """
    broken, name = rows.copy(), rows.columns[1]
    broken.loc[broken.index[1], name] = -1e9 if pd.api.types.is_numeric_dtype(rows[name]) else "?"
    return broken


def near_key(rows: pd.DataFrame, data: Data) -> pd.Series:
    """A number per row [n], equal for near-duplicates: all numbers in the same hundredth of their
    range.
    """
    features = Features.model_validate(data.features)
    rounded = rows[features.names].copy()
    for name, (low, high) in features.numeric.items():
        rounded[name] = ((rows[name] - low) / (high - low) * NEAR).round()
    return pd.util.hash_pandas_object(rounded, index=False)

"""The columns of the snapshot: the task's own between the key, what the split goes by, the label
and the hash of the content.
"""

import pandera.pandas as pa

from ..modeling import kinds
from ..settings import Data
from ..task.schema import columns

TEXT, NUMBER = pa.Column(str).dtype, pa.Column(float).dtype
AROUND = ("id", "label", "content")  # the columns that are no features


def schema(data: Data) -> pa.DataFrameSchema:
    """Columns, in order, and no others; `label` may be empty: the share of unlabeled rows is a
    check of its own.
    """
    features = columns(data)
    split_by = [data.split.key, *([data.split.time.column] if data.split.time else [])]
    others = [name for name in split_by if name not in (*AROUND, *features, "near")]
    return pa.DataFrameSchema(
        {
            "id": pa.Column(str, pa.Check.str_length(1, 200)),
            **features,
            **{name: pa.Column() for name in others},
            "label": kinds.of(data.kind).label_column(data),
            "content": pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{64}$")),
        },
        strict=True,
        ordered=True,
    )

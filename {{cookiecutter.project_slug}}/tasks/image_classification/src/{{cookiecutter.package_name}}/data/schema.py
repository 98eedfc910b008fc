"""What a valid row is. Every rule is checked on every row, and all failures are reported together."""

import io

import pandas as pd
import pandera.pandas as pa
from PIL import Image

from ..settings import Data


def readable(content: object) -> bool:
    """Whether the bytes are a whole PNG or JPEG file."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:  # type: ignore[arg-type]
            image.load()
    except (OSError, SyntaxError, TypeError, Image.DecompressionBombError):
        return False
    return True


def schema(data: Data) -> pa.DataFrameSchema:
    """Columns, in order, and no others; `label` may be empty: the share of unlabeled rows is a check of its own."""
    return pa.DataFrameSchema(
        {
            "id": pa.Column(str, pa.Check.str_length(1, 200), unique=True),
            "image": pa.Column(
                object, pa.Check(lambda s: s.map(readable), name="readable_picture", error="a whole PNG or JPEG file")
            ),
            "label": pa.Column(str, pa.Check.isin(data.labels), nullable=True),
            "content": pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{64}$")),
        },
        strict=True,
        ordered=True,
    )


def break_row(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with the second one made invalid, for tests: its picture is cut short."""
    broken = rows.copy()
    broken.at[1, "image"] = bytes(broken.at[1, "image"])[:20]
    return broken

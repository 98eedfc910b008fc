"""What a valid row is. Every rule is checked on every row; all failures are reported together."""

import hashlib

import numpy as np
import pandas as pd
import pandera.pandas as pa
from PIL import Image

from ..settings import Data
from .features import WANTED, Features, upright

SIDE, STEP = 8, 0.15


def readable(content: object, features: Features) -> bool:
    """Whether the bytes are a picture that the server would take."""
    try:
        upright(content, features)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False
    return True


def columns(data: Data) -> dict[str, pa.Column]:
    """Columns of the features, in order; `data/schema.py` adds key, label and content hash."""
    features = Features.model_validate(data.features)
    whole = pa.Check(
        lambda s: s.map(lambda content: readable(content, features)),
        name="readable_picture",
        error=f"{WANTED}, not larger than the limits",
    )
    return {"image": pa.Column(object, whole)}


def near_key(rows: pd.DataFrame, data: Data) -> pd.Series:
    """A text per row [n], equal for near-duplicates: other size, brightness or compression, a
    little noise.

    Difference hash: where the picture, reduced to 8x8 grey cells, gets lighter to the right or
    downwards by more than 15 % of its contrast (after N. Krawetz 2013, hackerfactor.com, with a
    dead band, so that noise on an even background changes nothing).
    """
    features = Features.model_validate(data.features)
    return rows["image"].map(lambda content: _near(content, features))


def _near(content: bytes, features: Features) -> str:
    try:
        return _difference_hash(upright(content, features))
    except (ValueError, TypeError):  # validation reports it: it is like no other here
        return hashlib.sha256(content or b"").hexdigest()


def _difference_hash(image: Image.Image) -> str:
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    cells = np.asarray(grey, np.float32)
    step = STEP * max(1.0, float(np.ptp(cells)))
    bits = np.concatenate([(np.diff(cells, axis=axis) > step).ravel() for axis in (0, 1)])
    return np.packbits(bits).tobytes().hex()

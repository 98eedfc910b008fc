"""How the panel of an epoch looks: a table of rows, with what the network says about each."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import personal
from .features import Features, inputs_to_instances

SUFFIX = "csv"


def view(inputs: dict[str, NDArray[np.float32]], said: pd.DataFrame, of: Features) -> bytes:
    """CSV of the columns, and of truth and answer beside them."""
    rows = personal.rows(pd.DataFrame(inputs_to_instances(inputs, of)), of.personal)
    text: str = pd.concat([said.drop(columns="wrong"), rows], axis=1).to_csv(
        index=False, float_format="%.6g"
    )
    return text.encode()

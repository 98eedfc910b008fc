"""Where the rows come from. Bring your own data with `configs/source`, or add a function here and
name it there.
"""

import numpy as np
import pandas as pd

from .features import png

LEVELS = 16  # the bundled pictures count ink in 17 steps


def bundled() -> pd.DataFrame:
    """The handwritten digits that scikit-learn carries: id, image (PNG bytes), label; 1,797 rows.

    Source: E. Alpaydin and C. Kaynak 1998, Optical Recognition of Handwritten Digits,
    doi:10.24432/C50P49 (test part).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / LEVELS)).round().astype(np.uint8)
    return pd.DataFrame(
        {
            "id": [f"digit-{i:04d}" for i in range(len(pixels))],
            "image": [png(p) for p in pixels],
            "label": digits.target.astype(str),
        }
    )

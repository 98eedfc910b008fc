"""Where the rows come from. Bring your own data by choosing another source, or by adding a function
here.
"""

import numpy as np
import pandas as pd

# scikit-learn's own documentation names them s1 to s6, and says what they are.
SERUM = {"s1": "tc", "s2": "ldl", "s3": "hdl", "s4": "tch", "s5": "ltg", "s6": "glu"}
SEED = 0  # of the gaps: the same in every project


def bundled(name: str, missing: float) -> pd.DataFrame:
    """A table that scikit-learn carries, with id and label: "diabetes" (442 rows) or
    "breast_cancer" (569 rows).

    `missing` is the share of the diabetes data's laboratory values that are left out, by a fixed
    seed: real tables have gaps; this shows how they are handled. Raises ValueError for another
    name.
    """
    tables = {"diabetes": _diabetes, "breast_cancer": _breast_cancer}
    if name not in tables:
        raise ValueError(
            f"no bundled data {name!r}: choose another source for your own, "
            f"or one of {', '.join(tables)}"
        )
    rows = tables[name](missing)
    rows.insert(0, "id", [f"{name}-{i:04d}" for i in range(len(rows))])
    return rows


def _diabetes(missing: float) -> pd.DataFrame:
    """Source: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani 2004, Least Angle Regression, Ann.
    Statist. 32.
    """
    from sklearn.datasets import load_diabetes

    table, label = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    rows = table.astype(float).rename(columns=SERUM)
    laboratory = list(SERUM.values())
    rows[laboratory] = rows[laboratory].mask(
        np.random.default_rng(SEED).random((len(rows), 6)) < missing
    )
    rows["sex"] = rows["sex"].astype(int).astype(str)
    columns = [*rows.columns.drop("sex"), "sex"]
    return rows[columns].assign(label=label.astype(float))


def _breast_cancer(missing: float) -> pd.DataFrame:
    """Source: W. Wolberg, O. Mangasarian, N. Street, W. Street 1993, doi:10.24432/C5DW2B; no value
    is left out.
    """
    from sklearn.datasets import load_breast_cancer

    table, label = load_breast_cancer(return_X_y=True, as_frame=True)
    names = {c: c.replace(" ", "_") for c in table.columns}
    return table.rename(columns=names).assign(label=label.map({0: "malignant", 1: "benign"}))

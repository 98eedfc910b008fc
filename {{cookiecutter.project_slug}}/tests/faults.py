"""Faults to plant into a snapshot, and what must catch each: `docs/data_checks.md` shows the same
table.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from harness import Project, module

Change = Callable[[pd.DataFrame, Any], pd.DataFrame]


class Fault(NamedTuple):
    """A change of the rows (given the settings' data), and who must catch it: stage, check, words,
    exit code.
    """

    change: Change
    stage: str
    check: str
    says: str
    code: int = 1


def store(project: Project, rows: pd.DataFrame, group: int | None = None) -> None:
    """Replaces the snapshot by these rows, with a manifest that fits."""
    provenance, ingest = module("provenance"), module("data.ingest")
    path = project.settings().paths.raw / ingest.FILE
    rows.to_parquet(path, index=False, row_group_size=group)
    manifest = provenance.read_json(path.with_name("manifest.json"))
    manifest["files"][ingest.FILE]["sha256"] = provenance.sha256(path)
    provenance.write_json(path.with_name("manifest.json"), manifest)


def break_row(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with the first feature of the second one made invalid."""
    values = rows.iloc[:, 1].tolist()
    wrong = values[1][:20] if isinstance(values[1], bytes) else "?"
    values[1] = -1e9 if pd.api.types.is_numeric_dtype(rows.iloc[:, 1]) else wrong
    return rows.assign(**{rows.columns[1]: values})


def from_file(project: Project) -> Path:
    """Makes the project read this file, which holds the rows of the bundled source; its settings
    know already.
    """
    project.run("ingest")
    path = project.folder / "data" / "source.parquet"
    module("data.ingest").read(project.settings()).drop(columns="content").to_parquet(
        path, index=False
    )
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    target = f"{module('data.ingest').__name__.removesuffix('ingest')}sources.table"
    params["data"]["source"] = {
        "_target_": target,
        "path": "data/source.parquet",
        "label": "label",
        "id": "id",
    }
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return path


def drop_a_row(path: Path) -> None:
    pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)


def version(project: Project) -> str:
    module("data.ingest").read(project.settings())  # whole, or an error
    return str(module("provenance").data_version(project.settings()))


def other_label(rows: pd.DataFrame) -> Any:
    """A label that the first row does not have."""
    return rows["label"][rows["label"] != rows["label"][0]].iloc[0]


def again(rows: pd.DataFrame, number: int, **changes: Any) -> pd.DataFrame:
    """The rows, and the first of them once more under other keys."""
    copies = rows.head(number).assign(id=lambda d: d["id"] + " again", **changes)
    return pd.concat([rows, copies], ignore_index=True)


def lookalikes(rows: pd.DataFrame, data: Any) -> pd.DataFrame:
    """The rows, and the first 100 of them with all numbers a thousandth smaller."""
    features = module("task.features")
    size = features.Features.model_validate(data.features)
    inputs = {
        name: x * np.float32(0.998) for name, x in features.encode(rows.head(100), size).items()
    }
    items = [
        features.Instance.model_validate(i) for i in features.inputs_to_instances(inputs, size)
    ]
    copies = pd.DataFrame([features.instance_to_row(item) for item in items])
    copies = copies.assign(
        id=[f"lookalike {i}" for i in range(len(copies))], label=rows["label"].head(100)
    )
    copies["content"] = module("data.ingest").content_hash(copies)
    return pd.concat([rows, copies.reindex(columns=rows.columns)], ignore_index=True)


def upper_half(rows: pd.DataFrame, data: Any) -> pd.DataFrame:
    """The rows in which the most varied number is above its median."""
    numbers = (
        module("data.checks")
        .describe(rows, data)
        .select_dtypes("number")
        .drop(columns="label", errors="ignore")
    )
    values = numbers[numbers.nunique().idxmax()].to_numpy()
    return rows[values > np.nanmedian(values)].reset_index(drop=True)


def retyped(rows: pd.DataFrame, data: Any) -> pd.DataFrame:
    """Labels of the other type: numbers for classes, words for numbers."""
    return rows.assign(label=range(len(rows)) if data.labels else "much")


FAULTS = {
    "a column of the wrong type": Fault(retyped, "validate", "row rules", "dtype("),
    "a value that its rule forbids": Fault(
        lambda r, d: break_row(r), "validate", "row rules", '"row": 1,'
    ),
    "a label that cannot be": Fault(
        lambda r, d: r.assign(
            label=r["label"].where(r.index != 5, "nonsense" if d.labels else np.inf)
        ),
        "validate",
        "row rules",
        '"row": 5,',
    ),
    "a key that is missing": Fault(
        lambda r, d: r.assign(id=r["id"].where(r.index != 5, None)),
        "validate",
        "row rules",
        "not_nullable",
    ),
    "a key that occurs twice": Fault(
        lambda r, d: r.assign(id=r["id"].where(r.index != 3, r["id"][2])),
        "validate",
        "repeated keys",
        "at most 0",
    ),
    "columns in another order": Fault(
        lambda r, d: r[r.columns[::-1]], "validate", "row rules", "column_ordered"
    ),
    "a column too many": Fault(
        lambda r, d: r.assign(extra=1), "validate", "row rules", "column_in_schema"
    ),
    "a column too few": Fault(
        lambda r, d: r.drop(columns="label"), "validate", "row rules", "column_in_dataframe"
    ),
    "no rows": Fault(lambda r, d: r.head(0), "validate", "rows", "at least 1"),
    "a row without a label": Fault(
        lambda r, d: r.assign(label=r["label"].where(r.index != 5, None)),
        "validate",
        "unlabeled rows",
        "at most 0",
    ),
    "many rows twice": Fault(
        lambda r, d: again(r, 100), "validate", "duplicate rows", "equal but for the key"
    ),
    "equal rows with different labels": Fault(
        lambda r, d: again(r, 1, label=other_label(r)),
        "validate",
        "equal rows with different labels",
        "at most 0",
    ),
    "a snapshot that drifted": Fault(
        upper_half, "validate", "drift since the last snapshot", "reports/profile.json"
    ),
    "equal rows in two splits": Fault(
        lambda r, d: again(r, 100), "split", "leakage", "equal rows in two splits"
    ),
    "near-duplicates in train and test": Fault(
        lookalikes, "split", "near_duplicates", "have a near-duplicate in train"
    ),
}

"""Reads the source chosen in `configs/source`, adds rows that users labelled, and writes an
immutable Parquet snapshot.

Equal data give equal bytes, so nothing after this stage runs again. A failure leaves the last good
snapshot as it is.
"""

import argparse
import contextlib
import filecmp
import hashlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow.parquet as pq
from hydra.utils import get_method
from numpy.typing import NDArray

from .. import logs
from ..provenance import read_json, sha256, write_json
from ..settings import Data, Settings
from .changes import remember
from .schema import (
    AROUND,
    holds_numbers,
    holds_text,
    numbers,
    schema,
    split_columns,
    without_missing,
)
from .sources import as_text

FILE, MANIFEST = "data.parquet", "manifest.json"
GROUP_ROWS = 16_384  # of a row group: what a stage holds at a time
CELL = 16  # bytes that stand for one value in the content hash


def content_hash(rows: pd.DataFrame) -> pd.Series:
    """SHA-256 of each row's features [n]: equal rows have equal hashes, whatever their key, label
    and order of columns.

    A value counts, not its type: 1, 1.0 and True are equal, and so are all ways of writing a
    missing value.
    """
    cells = [_cells(rows[name]) for name in sorted(rows.columns) if name not in AROUND]
    digests = [hashlib.sha256(record).hexdigest() for record in np.hstack(cells)]
    return pd.Series(digests, index=rows.index, dtype=str)


def _cells(values: pd.Series) -> NDArray[np.uint8]:
    """[n, CELL]: a mark and the float64, or the start of the SHA-256 of text and bytes; zeros where
    a value is missing.
    """
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(np.float64, na_value=np.nan) + 0.0  # -0.0 + 0.0 is 0.0
        there = ~np.isnan(numbers)
        return np.stack([there, np.where(there, numbers, 0.0)], axis=1).view(np.uint8)
    codes, unique = pd.factorize(values)  # -1 is missing
    contents = [v if isinstance(v, bytes) else str(v).encode() for v in unique]
    digests = [hashlib.sha256(content).digest()[:CELL] for content in contents]
    cells = np.frombuffer(b"".join([*digests, bytes(CELL)]), np.uint8).reshape(-1, CELL)
    return np.asarray(cells[codes])


def feedback_rows(folder: Path) -> list[pd.DataFrame]:
    """Rows that the retraining routine collected from labelled predictions, oldest first."""
    return [pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))]


def collect(settings: Settings) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """All rows with their content hash, and the number of rows and bytes after each step."""
    source = dict(settings.data.source)
    rows = get_method(source.pop("_target_"))(**source)
    if not {"id", "label"} <= {*rows}:
        raise ValueError("data.source must give the columns `id` and `label`")
    steps = [_step("source", rows)]
    parts = [typed(part, settings.data) for part in [rows, *feedback_rows(settings.paths.feedback)]]
    rows = pd.concat(parts, ignore_index=True)
    steps.append(_step("feedback added", rows))
    rows["content"] = content_hash(rows)
    return rows, [*steps, _step("hashed", rows)]


def _step(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    size = int(rows.memory_usage(deep=True, index=False).sum())
    return {"step": name, "rows": len(rows), "bytes": size}


def typed(rows: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Columns in the schema's order and of its types where they can be; the rest is left for
    validation to report.
    """
    rules = schema(data).columns
    names = [*(name for name in rules if name in rows), *rows.columns.difference(rules, sort=False)]
    columns, split_by = {name: rows[name] for name in names}, split_columns(data)
    for name in rules.keys() & columns.keys():
        values = rows[name]
        if name not in ("id", "content"):  # a key may be any word
            values = without_missing(values, rules[name], data)
        if holds_numbers(rules[name]):
            columns[name] = converted(values, rules[name], data)
        elif holds_text(rules[name]) or name in split_by:
            columns[name] = as_text(values)
    return pd.DataFrame(columns)


def converted(values: pd.Series, rule: pa.Column, data: Data) -> pd.Series:
    """Numbers of the schema's type; the values as they are where some are none, for validation to
    name.
    """
    result, kind = numbers(values, data.decimal, data.thousands), rule.dtype.type
    whole = pd.api.types.is_float_dtype(kind) or (result.dropna() % 1 == 0).all()
    if whole and result.notna().equals(values.notna()):
        with contextlib.suppress(ValueError):  # an int64 cannot be missing
            return result.astype(kind)
    return values


def source_rows(settings: Settings) -> int:
    """How many rows of the snapshot, the first ones, came from the source; the others are
    feedback.
    """
    return int(read_json(settings.paths.raw / MANIFEST)["steps"][0]["rows"])


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes the new snapshot beside the last one, then swaps it in; whatever fails before that has
    no effect.
    """
    raw = settings.paths.raw
    draft = raw.with_name(f".{raw.name}.tmp")
    with logs.stage("ingest") as log:
        try:
            rows, steps = collect(settings)
            for before, after in itertools.pairwise([{"rows": 0, "bytes": 0}, *steps]):
                fields = {"before": before, "after": after}
                log.info("%s: %d rows", after["step"], after["rows"], extra={"fields": fields})
            new = write(rows, raw, draft, steps)
        except Exception:
            if (raw / MANIFEST).is_file():
                log.error("%s keeps the last good snapshot", raw)
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # a full disk must not stay full
        remember(settings)
        log.info("a new version of the data" if new else "nothing new")
    return 0


def write(rows: pd.DataFrame, raw: Path, draft: Path, steps: list[dict[str, Any]]) -> bool:
    """Makes the rows the snapshot, by way of the folder `draft`; whether they differ from the last
    one.
    """
    raw.mkdir(parents=True, exist_ok=True)
    draft.mkdir(exist_ok=True)
    rows.to_parquet(draft / FILE, index=False, row_group_size=GROUP_ROWS)
    entry = {"sha256": sha256(draft / FILE), "bytes": (draft / FILE).stat().st_size}
    write_json(draft / MANIFEST, {"files": {FILE: entry}, "steps": steps})
    last = raw / MANIFEST
    same = last.is_file() and filecmp.cmp(last, draft / MANIFEST, shallow=False)
    for name in (FILE, MANIFEST):
        (draft / name).replace(raw / name)
    return not same


def verified(settings: Settings) -> Path:
    """The snapshot's file, compared with the manifest's SHA-256: DVC restores a damaged cache
    object silently, and a kill between two files leaves them unequal.
    """
    path = settings.paths.raw / FILE
    entry = read_json(settings.paths.raw / MANIFEST)["files"][FILE]
    if not path.is_file() or sha256(path) != entry["sha256"]:
        remedy = "run `make refresh`, which looks through DVC's cache too"
        raise ValueError(f"{path} differs from its manifest: {remedy}")
    return path


def read(settings: Settings) -> pd.DataFrame:
    """The snapshot, after `verified` has found it whole."""
    return pd.read_parquet(verified(settings))


def chunks(path: Path) -> Iterator[pd.DataFrame]:
    """The rows of each row group, numbered from 0 over the whole file: memory depends on the group,
    not on the file.
    """
    with pq.ParquetFile(path) as file:
        start = 0
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number).to_pandas()
            yield rows.set_index(pd.RangeIndex(start, start + len(rows)))
            start += len(rows)

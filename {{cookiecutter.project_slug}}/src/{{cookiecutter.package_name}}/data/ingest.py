"""Reads the source chosen in `configs/source`, adds rows that users labelled, and writes an
immutable Parquet snapshot.

Equal data give equal bytes, so nothing after this stage runs again. A failure leaves the last good
snapshot as it is.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from numpy.typing import NDArray

from .. import logs
from ..provenance import read_json, sha256, write_json
from ..settings import Data, Settings
from ..task.schema import schema
from .sources import as_text

FILE, MANIFEST = "data.parquet", "manifest.json"
ROW_GROUP = 65_536  # rows that a reader can take at a time
CELL = 16  # bytes that stand for one value in the content hash


def content_hash(rows: pd.DataFrame) -> pd.Series:
    """SHA-256 of each row's features: equal rows have equal hashes, whatever their key, label and
    order of columns.

    A value counts, not its type: 1, 1.0 and True are equal, and so are all ways of writing a
    missing value. Of text and bytes the first 128 bits of their SHA-256 enter, so that all rows are
    equally long and hashed without parsing.
    """
    columns = [_cells(rows[c]) for c in sorted(rows.columns) if c not in ("id", "label", "content")]
    digests: list[str] = []
    for start in range(0, len(rows), ROW_GROUP):
        records = np.hstack([cells(slice(start, start + ROW_GROUP)) for cells in columns])
        digests += [hashlib.sha256(record).hexdigest() for record in records]
    return pd.Series(digests, index=rows.index, dtype=str)


def _cells(values: pd.Series) -> Any:
    """A function that gives the cells of a slice of rows, uint8 [n, CELL]."""
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(np.float64, na_value=np.nan)
        return lambda part: _numbers(numbers[part])
    codes, found = pd.factorize(values)  # -1 is missing
    table = np.vstack([*(_cell(value) for value in found), np.zeros((1, CELL), np.uint8)])
    return lambda part: table[codes[part]]


def _numbers(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A mark and the float64, all zeros where it is missing."""
    cells = np.stack([np.ones_like(values), values + 0.0], axis=1)  # -0.0 + 0.0 is 0.0
    cells[np.isnan(values)] = 0.0
    return cells.view(np.uint8)


def _cell(value: object) -> NDArray[np.uint8]:
    if isinstance(value, bool | int | float | np.number):
        return _numbers(np.array([float(value)]))
    content = value if isinstance(value, bytes) else str(value).encode()
    return np.frombuffer(hashlib.sha256(content).digest()[:CELL], np.uint8)[None]


def feedback_rows(folder: Path) -> list[pd.DataFrame]:
    """Rows that the retraining routine collected from labelled predictions, oldest first."""
    return [pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))]


def collect(settings: Settings) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """All rows with their content hash, and the number of rows and bytes after each step."""
    rows = instantiate(settings.data.source, _convert_="all")
    if "id" not in rows or "label" not in rows:
        raise ValueError(
            f"the source {settings.data.source['_target_']} must give the columns `id` and `label`"
        )
    steps = [_step("source", rows)]
    rows = pd.concat([rows, *feedback_rows(settings.paths.feedback)], ignore_index=True)
    steps.append(_step("feedback added", rows))
    rows = typed(rows, settings.data)
    steps.append(_step("columns typed and ordered", rows))
    rows["content"] = content_hash(rows)
    steps.append(_step("content hash added", rows))
    return rows, steps


def typed(rows: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Columns in the schema's order and of its types where they can be; the rest is left for
    validation to report.
    """
    wanted = {
        name: str(column.dtype)
        for name, column in schema(data).columns.items()
        if name in rows.columns
    }
    for name, kind in wanted.items():
        with contextlib.suppress(ValueError, TypeError):
            if kind == "str":
                rows[name] = as_text(rows[name])
            elif kind == "float64":
                rows[name] = pd.to_numeric(rows[name]).astype(kind)
    return rows[[*wanted, *(c for c in rows.columns if c not in wanted)]]


def _step(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "step": name,
        "rows": len(rows),
        "bytes": int(rows.memory_usage(deep=True, index=False).sum()),
    }


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes the new snapshot beside the last one and swaps it in; whatever fails before that has
    no effect.
    """
    raw = settings.paths.raw
    with logs.stage("ingest") as log:
        draft = _draft(raw)
        settle(raw)
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        try:
            rows, steps = collect(settings)
            for before, after in zip([{"rows": 0, "bytes": 0}, *steps], steps, strict=False):
                fields = {"before": before, "after": after}
                log.info("%s: %d rows", after["step"], after["rows"], extra={"fields": fields})
            write(rows, draft, settings.data.name, steps)
        except Exception as error:
            shutil.rmtree(draft, ignore_errors=True)  # a full disk must not stay full
            raise _kept(error, raw) from error
        same = _whole(raw) and (raw / MANIFEST).read_bytes() == (draft / MANIFEST).read_bytes()
        log.info(
            "nothing new: the snapshot stays as it is" if same else "a new version of the data"
        )
        if not same:
            commit(draft, raw)
        shutil.rmtree(draft, ignore_errors=True)
    return 0


def _kept(error: Exception, raw: Path) -> Exception:
    """The error, with a word on what lies in data/raw; a bug in a source stays what it is, with its
    traceback.
    """
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what the source itself raised
    left = (
        f"{raw} keeps the last good snapshot"
        if (raw / MANIFEST).is_file()
        else f"there is no snapshot in {raw} yet"
    )
    line = logs.explain(error)
    if line is not None:
        return ValueError(f"{line}; {left}")
    error.add_note(left)
    return error


def write(rows: pd.DataFrame, draft: Path, source: str, steps: list[dict[str, Any]]) -> None:
    """Snapshot and manifest in the folder `draft`, on the disk and not just on their way to it."""
    draft.mkdir(parents=True)
    rows.to_parquet(draft / FILE, index=False, row_group_size=ROW_GROUP)
    entry = {
        "sha256": sha256(draft / FILE),
        "rows": len(rows),
        "bytes": (draft / FILE).stat().st_size,
    }
    columns = {name: str(kind) for name, kind in rows.dtypes.items()}
    manifest = {"source": source, "files": {FILE: entry}, "columns": columns, "steps": steps}
    write_json(draft / MANIFEST, manifest)
    for name in (FILE, MANIFEST):
        with (draft / name).open("r+b") as file:
            os.fsync(file.fileno())


def commit(draft: Path, raw: Path) -> None:
    """Makes the draft the snapshot. No system swaps two files at once: the manifest decides, and
    its data follow.
    """
    raw.mkdir(parents=True, exist_ok=True)
    (draft / MANIFEST).replace(raw / MANIFEST)
    settle(raw)


def settle(raw: Path) -> None:
    """Ends a swap that was killed half-way: data that the manifest names already are moved to their
    place.
    """
    data = _draft(raw) / FILE
    if data.is_file() and (raw / MANIFEST).is_file() and sha256(data) == _entry(raw)["sha256"]:
        with contextlib.suppress(FileNotFoundError):  # another process has just done it
            data.replace(raw / FILE)


def _draft(raw: Path) -> Path:
    return raw.with_name(f".{raw.name}.tmp")


def _entry(raw: Path) -> dict[str, Any]:
    return dict(read_json(raw / MANIFEST)["files"][FILE])


def _whole(raw: Path) -> bool:
    return (
        (raw / MANIFEST).is_file()
        and (raw / FILE).is_file()
        and sha256(raw / FILE) == _entry(raw)["sha256"]
    )


def verified(settings: Settings) -> Path:
    """The snapshot's file, compared with the manifest's SHA-256: DVC restores a damaged cache
    object silently.
    """
    raw = settings.paths.raw
    settle(raw)
    _entry(raw)  # tells what to do where there is none
    if not _whole(raw):
        ways = "run `dvc repro --force ingest` or `dvc pull --force`"
        raise ValueError(f"{raw / FILE} differs from its manifest: {ways}")
    return raw / FILE


def read(settings: Settings) -> pd.DataFrame:
    """The snapshot, after `verified` has found it whole."""
    return pd.read_parquet(verified(settings))

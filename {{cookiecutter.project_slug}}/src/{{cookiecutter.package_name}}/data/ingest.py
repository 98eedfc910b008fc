"""Reads the source named in `configs/data`, adds rows that users labelled, and writes an immutable Parquet snapshot."""

import argparse
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.utils import instantiate

from .. import logs
from ..provenance import read_json, sha256, write_json
from ..settings import Settings

FILE = "data.parquet"


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond the settings."""


def content_hash(rows: pd.DataFrame) -> pd.Series:
    """SHA-256 of each row's features: equal rows have equal hashes, whatever their key and label."""
    columns = [c for c in rows.columns if c not in ("id", "label", "content")]
    records = rows[columns].itertuples(index=False, name=None)
    return pd.Series([hashlib.sha256(repr(r).encode()).hexdigest() for r in records], index=rows.index, dtype=str)


def feedback_rows(folder: Path) -> list[pd.DataFrame]:
    """Rows that the retraining routine collected from labelled predictions, oldest first."""
    return [pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))]


def collect(settings: Settings) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """All rows with their content hash, and the number of rows and bytes after each step."""
    rows = instantiate(settings.data.source)
    if "id" not in rows or "label" not in rows:
        raise ValueError(f"the source {settings.data.source['_target_']} must give the columns `id` and `label`")
    steps = [_step("source", rows)]
    rows = pd.concat([rows, *feedback_rows(settings.paths.feedback)], ignore_index=True)
    steps.append(_step("feedback added", rows))
    rows["content"] = content_hash(rows)
    steps.append(_step("content hash added", rows))
    return rows, steps


def _step(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    return {"step": name, "rows": len(rows), "bytes": int(rows.memory_usage(deep=True, index=False).sum())}


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes data/raw beside its place and swaps it in whole, so that a failure leaves the last snapshot."""
    with logs.stage("ingest") as log:
        rows, steps = collect(settings)
        for before, after in zip([{"rows": 0, "bytes": 0}, *steps], steps, strict=False):
            log.info("%s: %d rows", after["step"], after["rows"], extra={"fields": {"before": before, "after": after}})
        draft = settings.paths.raw.with_name(f".{settings.paths.raw.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        rows.to_parquet(draft / FILE, index=False)
        entry = {"sha256": sha256(draft / FILE), "rows": len(rows), "bytes": (draft / FILE).stat().st_size}
        columns = {name: str(kind) for name, kind in rows.dtypes.items()}
        manifest = {"source": settings.data.name, "files": {FILE: entry}, "columns": columns, "steps": steps}
        write_json(draft / "manifest.json", manifest)
        shutil.rmtree(settings.paths.raw, ignore_errors=True)
        draft.replace(settings.paths.raw)
    return 0


def read(settings: Settings) -> pd.DataFrame:
    """The snapshot, after its SHA-256 was compared with the manifest: DVC restores a damaged cache object silently."""
    path = settings.paths.raw / FILE
    entry = read_json(settings.paths.raw / "manifest.json")["files"][FILE]
    if not path.is_file() or sha256(path) != entry["sha256"]:
        raise ValueError(f"{path} differs from its manifest: run `dvc repro --force ingest` or `dvc pull --force`")
    return pd.read_parquet(path)

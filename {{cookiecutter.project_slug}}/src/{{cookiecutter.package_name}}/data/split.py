"""Assigns every row to train, val, calibration or test by a hash of its key, which it keeps when data is added."""

import argparse
import hashlib
import itertools
from typing import Any, Literal

import numpy as np
import pandas as pd

from .. import logs
from ..provenance import stamp, write_json
from ..settings import Settings, Split
from .ingest import read

NAMES: tuple[Literal["train", "val", "calibration", "test"], ...] = ("train", "val", "calibration", "test")


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond the settings."""


def assign(keys: pd.Series, split: Split, seed: int) -> pd.Series:
    """The split's name for each key: its hash, as a number in [0, 1), falls into one of the fractions.

    The hash knows nothing of the class, so classes are balanced in expectation; `class_deviation` checks the outcome.
    """
    if abs(sum(split.fractions.values()) - 1) > 1e-9 or set(split.fractions) != set(NAMES):
        raise ValueError(f"data.split.fractions must name {', '.join(NAMES)} and add up to 1")
    digests = [hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8] for key in keys]
    uniform = np.array([int.from_bytes(d, "big") for d in digests], dtype=np.float64) / 2**64
    edges = list(itertools.accumulate(split.fractions[name] for name in NAMES[:-1]))
    return pd.Series(np.array(NAMES)[np.searchsorted(edges, uniform, side="right")], index=keys.index)


def leakage(rows: pd.DataFrame, names: pd.Series) -> dict[str, int]:
    """Rows of equal content that lie in both of two splits, for each pair of splits."""
    contents = {name: set(rows.loc[names == name, "content"]) for name in NAMES}
    return {f"{a}/{b}": len(contents[a] & contents[b]) for a, b in itertools.combinations(NAMES, 2)}


def class_deviation(rows: pd.DataFrame, names: pd.Series) -> dict[str, float]:
    """Per split, the largest difference of a class share inside it from that share over all rows."""
    overall = rows["label"].value_counts(normalize=True)
    inside = {
        n: rows.loc[names == n, "label"].value_counts(normalize=True).reindex(overall.index, fill_value=0)
        for n in NAMES
    }
    return {name: round(float((share - overall).abs().max()), 4) for name, share in inside.items()}


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes one Parquet file per split and reports/splits.json; leakage or a lopsided split ends the pipeline."""
    with logs.stage("split") as log:
        rows = read(settings).dropna(subset="label").reset_index(drop=True)
        names = assign(rows[settings.data.split.key], settings.data.split, settings.seed)
        leaks, deviation = leakage(rows, names), class_deviation(rows, names)
        report: dict[str, Any] = {
            "provenance": stamp(settings, "split"),
            "rows": {name: int((names == name).sum()) for name in NAMES},
            "leakage": leaks,
            "class_deviation": deviation,
        }
        write_json(settings.paths.reports / "splits.json", report)
        if any(leaks.values()):
            raise ValueError(f"equal rows in two splits {leaks}: set data.split.key=content, which keeps them together")
        if min(report["rows"].values()) == 0 or max(deviation.values()) > settings.data.split.max_class_deviation:
            raise ValueError(
                f"splits are empty or lopsided {report['rows']} {deviation}: change `seed` or the fractions"
            )
        settings.paths.splits.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            rows[names == name].to_parquet(settings.paths.splits / f"{name}.parquet", index=False)
        log.info("%s, no leakage", ", ".join(f"{n} {report['rows'][n]}" for n in NAMES))
    return 0

"""Assigns every row to train, val, calibration or test by a hash of its key, which it keeps when
data is added.
"""

import argparse
import hashlib
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import logs
from ..provenance import stamp, write_json
from ..settings import Data, Settings, Split
from ..task.schema import near_key
from . import card
from .checks import EXAMPLES, at, codes, hashes, repeats
from .ingest import verified
from .snapshot import chunks

NAMES: tuple[Literal["train", "val", "calibration", "test"], ...] = (
    "train",
    "val",
    "calibration",
    "test",
)
NEAR = "near"  # as data.split.key: near-duplicates share a split
NearKey = Callable[[pd.DataFrame, Data], pd.Series]


def assign(keys: pd.Series, split: Split, seed: int) -> NDArray[np.int8]:
    """Index into NAMES for each key, [n]: its hash, as a number in [0, 1), falls into one of the
    fractions.

    The hash knows nothing of labels, so they are balanced in expectation; `deviation` checks the
    outcome.
    """
    if abs(sum(split.fractions.values()) - 1) > 1e-9 or set(split.fractions) != set(NAMES):
        raise ValueError(f"data.split.fractions must name {', '.join(NAMES)} and add up to 1")
    if keys.isna().any():
        raise ValueError(
            f"data.split.key={split.key}: row {int(keys.isna().argmax())} has no value there"
        )
    start, sha256 = f"{seed}:", hashlib.sha256
    digests = b"".join([sha256(f"{start}{key}".encode()).digest()[:8] for key in keys.tolist()])
    uniform = np.frombuffer(digests, ">u8").astype(np.float64) / 2**64
    names = NAMES if split.time is None else NAMES[:-1]
    shares = np.array([split.fractions[name] for name in names])
    return np.searchsorted(np.cumsum(shares / shares.sum())[:-1], uniform, side="right").astype(
        np.int8
    )


def newest(path: Path, split: Split) -> Any:
    """The time from which on rows are the test split; None where the split is not by time."""
    if split.time is None:
        return None
    times = pq.read_table(path, columns=[split.time.column])[0]
    if times.null_count:
        raise ValueError(
            f"data.split.time.column={split.time.column}: {times.null_count} rows have no value there"
        )
    if split.time.test_from is not None:
        return pc.cast(pa.scalar(split.time.test_from), times.type)
    order = pc.sort_indices(times)
    return times[order[int(len(times) * (1 - split.fractions["test"]))].as_py()]


class Record:
    """What is known of each row, by chunk: its split (-1 for none), hash of content, near key,
    label.
    """

    def __init__(self) -> None:
        self.split: list[NDArray[np.int8]] = []
        self.content: list[NDArray[np.uint64]] = []
        self.near: list[NDArray[np.uint64]] = []
        self.label: list[NDArray[Any]] = []

    def rows(self) -> dict[str, int]:
        counts = sum(
            (np.bincount(part[part >= 0], minlength=len(NAMES)) for part in self.split),
            np.zeros(len(NAMES)),
        )
        return {name: int(count) for name, count in zip(NAMES, counts, strict=True)}

    def leakage(self) -> dict[str, int]:
        """Number of contents that lie in both of two splits, for each pair of splits."""
        rows = repeats(self.content)  # a content that only one row has lies in one split
        split, content = at(self.split, rows), at(self.content, rows)
        inside = [np.unique(content[split == i]) for i in range(len(NAMES))]
        pairs = itertools.combinations(range(len(NAMES)), 2)
        return {
            f"{NAMES[a]}/{NAMES[b]}": len(np.intersect1d(inside[a], inside[b], True))
            for a, b in pairs
        }

    def near_duplicates(self) -> dict[str, Any]:
        """Test rows that have a near-duplicate, and no equal row, in train: number, share, first
        pairs of rows.
        """
        rows = repeats(self.near)
        split, near, content = (at(parts, rows) for parts in (self.split, self.near, self.content))
        train, test = np.flatnonzero(split == 0), np.flatnonzero(split == 3)
        known, first = np.unique(near[train], return_index=True)
        found = test[np.isin(near[test], known) & ~np.isin(content[test], content[train])]
        partners = train[first[np.searchsorted(known, near[found])]]
        pairs = zip(
            rows[found][:EXAMPLES].tolist(), rows[partners][:EXAMPLES].tolist(), strict=True
        )
        share = len(found) / max(1, self.rows()["test"])
        return {
            "rows": len(found),
            "share": share,
            "test_and_train_rows": [list(pair) for pair in pairs],
        }


def deviation(labels: NDArray[Any], split: NDArray[np.int8], kind: str) -> dict[str, float]:
    """Per split, the largest difference from all rows: of class shares, or for values of
    distribution functions.
    """
    if kind == "regression":
        labels = np.unique(labels, return_inverse=True)[1]
    size = int(labels.max(initial=-1)) + 1
    overall = np.bincount(labels[split >= 0], minlength=size) / max(1, (split >= 0).sum())
    found: dict[str, float] = {}
    for i, name in enumerate(NAMES):
        difference = (
            np.bincount(labels[split == i], minlength=size) / max(1, (split == i).sum()) - overall
        )
        if kind == "regression":
            difference = np.cumsum(difference)
        found[name] = round(float(np.abs(difference).max(initial=0)), 4)
    return found


def write_splits(path: Path, folder: Path, data: Data, seed: int, near: NearKey) -> Record:
    """Writes the labelled rows of each chunk to their split's file in the folder."""
    record, schema, cut = Record(), pq.read_schema(path), newest(path, data.split)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writers = [pq.ParquetWriter(folder / f"{name}.parquet", schema) for name in NAMES]
    try:
        for _, table in chunks(path):
            rows, labelled = table.to_pandas(), table["label"].is_valid().to_numpy()
            keys = near(rows, data)
            split = assign(
                keys if data.split.key == NEAR else rows[data.split.key], data.split, seed
            )
            if data.split.time is not None:
                split[pc.greater_equal(table[data.split.time.column], cut).to_numpy()] = (
                    NAMES.index("test")
                )
            split[~labelled] = -1
            for i, writer in enumerate(writers):
                writer.write_table(table.filter(pa.array(split == i)))
            record.split.append(split)
            record.content.append(hashes(rows["content"]))
            record.near.append(hashes(keys))
            record.label.append(codes(rows["label"], data))
    finally:
        for writer in writers:
            writer.close()
    return record


def faults(report: dict[str, Any], limits: Split) -> list[str]:
    """What is wrong with the splits, and what to do."""
    found, near = [], report["near_duplicates"]
    if any(report["leakage"].values()):
        found.append(
            f"equal rows in two splits {report['leakage']}: set data.split.key=content, which keeps them together"
        )
    if near["share"] > limits.max_near_duplicates:
        found.append(
            f"{near['rows']} test rows ({near['share']:.1%}) have a near-duplicate in train, first (test, train) "
            f"{near['test_and_train_rows'][:3]}: set data.split.key={NEAR}, which keeps them together"
        )
    if (
        min(report["rows"].values()) == 0
        or max(report["label_deviation"].values()) > limits.max_label_deviation
    ):
        found.append(
            f"splits are empty or lopsided {report['rows']} {report['label_deviation']}: change `seed` or the fractions"
        )
    return found


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes one Parquet file per split, reports/splits.json and the data card; exit code 1 for
    leaking splits.
    """
    with logs.stage("split") as log:
        draft = settings.paths.splits.with_name(f".{settings.paths.splits.name}.tmp")
        record = write_splits(verified(settings), draft, settings.data, settings.seed, near_key)
        report: dict[str, Any] = {
            "provenance": stamp(settings, "split"),
            "rows": record.rows(),
            "leakage": record.leakage(),
            "near_duplicates": record.near_duplicates(),
            "label_deviation": deviation(
                np.concatenate(record.label), np.concatenate(record.split), settings.data.kind
            ),
            "card": {"unanswered": card.unanswered(settings)},
        }
        report["faults"] = wrong = faults(report, settings.data.split)
        write_json(settings.paths.reports / "splits.json", report)
        if wrong:
            shutil.rmtree(draft)
            log.error("the splits cannot be used: %s", "; ".join(wrong))
            return 1
        shutil.rmtree(settings.paths.splits, ignore_errors=True)
        draft.replace(settings.paths.splits)
        log.info("%s, no leakage", ", ".join(f"{n} {report['rows'][n]}" for n in NAMES))
        card.write(settings)
    return 0

"""Assigns every row to train, val, calibration or test by a hash of its key, which it keeps when
data is added.
"""

import argparse
import hashlib
import itertools
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import logs
from ..modeling import kinds
from ..provenance import stamp, write_json
from ..settings import Data, Settings, Split, Time
from ..task.schema import near_key
from . import card
from .checks import EXAMPLES
from .ingest import chunks, verified

NAMES: tuple[Literal["train", "val", "calibration", "test"], ...] = (
    "train",
    "val",
    "calibration",
    "test",
)
ZONE = r"\d:?\d\d(?::\d\d(?:\.\d+)?)?\s?(?:Z|[+-]\d\d:?\d\d)$"  # after a time of day
NEAR = "near"  # as data.split.key: near-duplicates share a split
TRAIN, TEST, NONE = 0, 3, -1  # positions in NAMES; rows without a label are in no split


def assign(keys: pd.Series, split: Split, seed: int) -> NDArray[np.int8]:
    """Index into NAMES for each key, [n]: its hash, as a number in [0, 1), falls into one of the
    fractions.

    The hash knows nothing of labels, so they are balanced in expectation; the report says how far
    they deviate.
    """
    if abs(sum(split.fractions.values()) - 1) > 1e-9 or set(split.fractions) != set(NAMES):
        raise ValueError(f"data.split.fractions must name {', '.join(NAMES)} and add up to 1")
    hashes = [hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8] for key in keys.tolist()]
    uniform = np.frombuffer(b"".join(hashes), ">u8").astype(np.float64) / 2**64
    names = NAMES if split.time is None else NAMES[:TEST]
    shares = np.cumsum([split.fractions[name] for name in names])
    return np.searchsorted(shares[:-1] / shares[-1], uniform, side="right").astype(np.int8)


def times(values: pd.Series, time: Time) -> pd.Series:
    """What rows are ordered by: numbers, or moments in UTC. Text is never compared as text.

    Raises ValueError for what is neither a number nor a date of the format, or of ISO 8601.
    """
    if pd.api.types.is_datetime64_any_dtype(values):
        return pd.to_datetime(values, utc=True)
    if not pd.api.types.is_numeric_dtype(values) and time.format is None:
        converted = pd.to_numeric(values, errors="coerce")
        values = converted if converted.notna().equals(values.notna()) else values
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(float)
    text, name = values.astype("str"), f"data.split.time.column={time.column}"
    # Rows are named by their numbers and by the shape of what they hold, which may be personal.
    zoned = text.dropna().str.contains(ZONE)
    if zoned.any() and not zoned.all():
        raise ValueError(
            f"{name}: row {zoned.idxmax()} has a time zone, row {zoned.idxmin()} none: "
            "write all like 2024-01-31T10:00:00+01:00, or none"
        )
    moments = pd.to_datetime(text, format=time.format or "ISO8601", utc=True, errors="coerce")
    wrong = text[moments.isna() & text.notna()]
    if len(wrong):
        form = time.format or "a number or ISO 8601, such as 2024-01-31"
        shape = re.sub("[a-zA-Z]", "a", re.sub(r"\d", "9", wrong.iloc[0]))
        raise ValueError(
            f"{name}: row {wrong.index[0]} has something like {shape!r}, which is not {form}: mend "
            f"it and {len(wrong) - 1} more, or set data.split.time.format, such as '%d/%m/%Y'"
        )
    return moments


def split_keys(rows: pd.DataFrame, data: Data, near: pd.Series | None = None) -> pd.Series:
    """What decides on the split of each row [n]: its own key where it has no group, as feedback."""
    if data.split.key == NEAR:
        return near_key(rows, data) if near is None else near
    keys = rows[data.split.key]
    return keys.fillna(rows["id"]) if keys.isna().any() else keys


def newest(path: Path, split: Split) -> pd.Series:
    """Whether each row is in the test split by its time; never where the split is not by time, nor
    for feedback, which has no time.
    """
    time = split.time
    if time is None:
        return pd.Series(False, index=range(pq.read_metadata(path).num_rows))
    moments = times(pd.read_parquet(path, columns=[time.column])[time.column], time)
    if time.test_from is None:
        ordered = moments.dropna().sort_values()
        first = ordered.iloc[int(len(ordered) * (1 - split.fractions["test"]))]
    else:
        first = times(pd.Series([time.test_from]), time)[0]
    return moments >= first


def write_splits(path: Path, folder: Path, data: Data, seed: int) -> pd.DataFrame:
    """Writes the labelled rows to their split's file in the folder; gives split, label, content and
    near key of each row.
    """
    schema, late, parts = pq.read_schema(path), newest(path, data.split), []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writers = [pq.ParquetWriter(folder / f"{name}.parquet", schema) for name in NAMES]
    for rows in chunks(path):
        near = near_key(rows, data)
        split = assign(split_keys(rows, data, near), data.split, seed)
        split[late[rows.index]] = TEST
        split[rows["label"].isna()] = NONE
        for i, writer in enumerate(writers):
            writer.write_table(pa.Table.from_pandas(rows[split == i], schema, False))
        content = pd.util.hash_pandas_object(rows["content"], index=False)  # 8 bytes each
        parts.append(rows[["label"]].assign(split=split, near=near, content=content))
    for writer in writers:
        writer.close()
    return pd.concat(parts)


def leakage(rows: pd.DataFrame) -> dict[str, int]:
    """Number of contents that lie in both of two splits, for each pair of splits."""
    contents = [pd.Index(rows["content"][rows["split"] == i].unique()) for i in range(len(NAMES))]
    pairs = itertools.combinations(range(len(NAMES)), 2)
    return {f"{NAMES[a]}/{NAMES[b]}": int(contents[a].isin(contents[b]).sum()) for a, b in pairs}


def near_duplicates(rows: pd.DataFrame) -> dict[str, Any]:
    """Test rows that have a near-duplicate, and no equal row, in train: number, share, first
    pairs of rows.
    """
    rows = rows.assign(row=rows.index)
    train, test = rows[rows["split"] == TRAIN], rows[rows["split"] == TEST]
    new = test[~test["content"].isin(train["content"])]
    pairs = new.merge(train.drop_duplicates("near"), on="near")[["row_x", "row_y"]]
    examples = pairs.head(EXAMPLES).to_numpy().tolist()
    share = len(pairs) / max(1, len(test))
    return {"rows": len(pairs), "share": share, "test_and_train_rows": examples}


def summary(rows: pd.DataFrame, data: Data) -> dict[str, Any]:
    """What reports/splits.json says of the splits."""
    labels = rows["label"][rows["split"] != NONE]
    parts = {name: labels[rows["split"] == i] for i, name in enumerate(NAMES)}
    deviation = kinds.of(data.kind).label_deviation
    counts = {k: {n: int((p == k).sum()) for n, p in parts.items()} for k in data.labels}
    report = {
        "rows": {name: len(part) for name, part in parts.items()},
        "classes": counts,
        "leakage": leakage(rows),
        "near_duplicates": near_duplicates(rows),
        "label_deviation": {n: round(deviation(part, labels), 4) for n, part in parts.items()},
    }
    return {**report, "faults": faults(report, data)}


def faults(report: dict[str, Any], data: Data) -> list[str]:
    """What is wrong with the splits, and what to do."""
    results, near, rows, limits = [], report["near_duplicates"], report["rows"], data.split
    for label, counts in report["classes"].items():
        lacking = [name for name in ("train", "val", "test") if not counts[name]]
        if lacking and label not in data.allow_absent:
            results.append(
                f"class {label!r} has {sum(counts.values())} rows, and none in "
                f"{', '.join(lacking)}: collect more, merge it with another class, or allow it by "
                f"data.allow_absent=[{label!r}]"
            )
    if any(report["leakage"].values()):
        results.append(
            f"equal rows in two splits {report['leakage']}: set data.split.key=content, "
            "which keeps them together"
        )
    if near["share"] > limits.max_near_duplicates:
        apart = f"set data.split.key={NEAR}, which keeps them together, or "
        results.append(
            f"{near['rows']} test rows ({near['share']:.1%}) have a near-duplicate in train, first "
            f"(test, train) {near['test_and_train_rows'][:3]}: {'' if limits.time else apart}"
            "raise data.split.max_near_duplicates where rows may be alike by chance"
        )
    deviation = report["label_deviation"]
    if not all(rows.values()) or max(deviation.values()) > limits.max_label_deviation:
        results.append(
            f"splits are empty or lopsided {rows} {deviation}: change `seed` or the fractions"
        )
    return results


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes one Parquet file per split, reports/splits.json and the data card; exit code 1 for
    leaking splits.
    """
    folder = settings.paths.splits
    draft = folder.with_name(f".{folder.name}.tmp")
    with logs.stage("split") as log:
        rows = write_splits(verified(settings), draft, settings.data, settings.seed)
        report = summary(rows, settings.data)
        report["provenance"] = stamp(settings, "split")
        report["card"] = {"unanswered": card.unanswered(settings)}
        write_json(settings.paths.reports / "splits.json", report)
        if report["faults"]:
            shutil.rmtree(draft)
            log.error("the splits cannot be used: %s", "; ".join(report["faults"]))
            return 1
        least = settings.evaluation.slices.min_size
        for label, counts in report["classes"].items():
            if 0 < counts["test"] < least:
                words = "class %r has %d test rows: under %d, too few to be judged by itself"
                log.warning(words, label, counts["test"], least)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
        log.info("%s, no leakage", ", ".join(f"{n} {k}" for n, k in report["rows"].items()))
        card.write(settings)
    return 0

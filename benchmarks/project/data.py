"""Speed and memory of validate and split on a made-up table, beside a bare read of the same file:
`make bench-data`.

Each measurement is a process of its own.
"""

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet as pq
from common import ROOT, module, parser, report

ROUNDS, SEED, GROUP = 3, 7, 65_536
LABELS = ["no", "yes"]


def bench_data(rows: int, columns: int) -> dict[str, float]:
    """Medians over rounds in which all parts take turns, at a quarter of the rows and at all of
    them.
    """
    figures = {}
    for n in (rows // 4, rows):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            write_table(path, n, columns)
            rounds = [{part: measure(part, path) for part in PARTS} for _ in range(ROUNDS)]
        seconds = {part: statistics.median(r[part]["seconds"] for r in rounds) for part in PARTS}
        for part in PARTS:
            figures[f"{n} rows: {part}, rows per second"] = n / seconds[part]
            figures[f"{n} rows: {part}, peak MiB"] = statistics.median(r[part]["mebibytes"] for r in rounds)
        work = statistics.median(
            (r["validate"]["seconds"] + r["split"]["seconds"]) / r["read"]["seconds"] for r in rounds
        )
        figures[f"{n} rows: validate and split, times the bare read"] = work
    return figures


def write_table(path: Path, rows: int, columns: int) -> None:
    """Numbers, with a key, a class and the hash of the content, as ingest writes them."""
    rng, writer = np.random.default_rng(SEED), None
    for start in range(0, rows, GROUP):
        n = min(GROUP, rows - start)
        numbers = rng.normal(size=(n, columns))
        table = pd.DataFrame({"id": [f"row-{i:09d}" for i in range(start, start + n)]})
        table = table.assign(**{f"x{j}": numbers[:, j] for j in range(columns)}, label=rng.choice(LABELS, n))
        table["content"] = [hashlib.sha256(row).hexdigest() for row in numbers]
        arrow = pyarrow.Table.from_pandas(table, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, arrow.schema)
        writer.write_table(arrow)
    if writer:
        writer.close()


def measure(part: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--part", part, "--table", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{part} failed: {done.stderr.strip()[-300:]}")
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


def rules(columns: list[str]) -> pa.DataFrameSchema:
    """A range for every number and the known classes: what a schema of such a table has."""
    numbers = {c: pa.Column(float, pa.Check.in_range(-10, 10)) for c in columns if c.startswith("x")}
    ends = {
        "label": pa.Column(str, pa.Check.isin(LABELS), nullable=True),
        "content": pa.Column(str),
    }
    return pa.DataFrameSchema({"id": pa.Column(str), **numbers, **ends}, strict=True, ordered=True)


def described(rows: pd.DataFrame, data: Any) -> pd.DataFrame:
    return rows.drop(columns=["id", "content"])


def near(rows: pd.DataFrame, data: Any) -> pd.Series:
    """Rows whose numbers agree to a tenth."""
    return pd.util.hash_pandas_object(rows.filter(regex="^x").round(1), index=False)


def made_up() -> Any:
    """The project's limits, for two classes and rows that share a split by their content."""
    data = module("params").load().data
    split = data.split.model_copy(update={"key": "content", "time": None})
    return data.model_copy(update={"kind": "binary", "labels": LABELS, "split": split})


def validate(path: Path) -> None:
    columns, n = pq.read_schema(path).names, pq.read_metadata(path).num_rows
    checks = module("data.checks")
    checks.describe = described
    first, columns, sample = module("data.validate").inspect(path, made_up(), rules(columns), n)
    checks.profile(sample)
    keys = pd.read_parquet(path, columns=["id", "label", "content"])
    judged = checks.judge(keys, columns, made_up())
    if len(first) or not all(c["ok"] for c in judged):
        raise ValueError(f"the made-up table is invalid: {first}, {judged}")


def split(path: Path) -> None:
    stage, folder = module("data.split"), path.with_name("splits")
    stage.near_key = near
    stage.summary(stage.write_splits(path, folder, made_up(), SEED), made_up())
    files = [folder / f"{name}.parquet" for name in stage.NAMES]
    written = sum(pq.read_metadata(file).num_rows for file in files)
    if written != pq.read_metadata(path).num_rows:
        raise ValueError(f"{written} rows in the splits")


PARTS = {"read": pd.read_parquet, "validate": validate, "split": split}


def peak() -> float:
    """Most memory this process held at once, MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent held
        line = next(x for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def in_this_process(part: str, path: Path) -> None:
    made_up()  # imports and settings are no part of the time
    for name in ("validate", "split"):
        module(f"data.{name}")
    begin = time.perf_counter()
    PARTS[part](path)
    print(json.dumps({"seconds": time.perf_counter() - begin, "mebibytes": peak()}))


if __name__ == "__main__":
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=1_000_000)
    made.add_argument("--columns", type=int, default=20)
    made.add_argument("--part", choices=PARTS, help=SUPPRESS)
    made.add_argument("--table", type=Path, help=SUPPRESS)
    given = made.parse_args()
    if given.part:
        in_this_process(given.part, given.table)
    else:
        report("data", lambda _, given: bench_data(given.rows, given.columns), made)

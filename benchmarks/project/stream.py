"""Speed and memory of data streamed from disk, beside data in memory: `make bench-stream`, after
`make pipeline`.

The project's own training rows, drawn again and again, make tables of four sizes. Of each, two
passes are loaded and one epoch is trained, streamed and in memory, each in a process of its own.
Rates are of the second pass and of the epoch's training steps; memory is the most that the process
held at once, with the largest of its workers counted `training.workers` times.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from common import medians, module, parser, report

SEED, GROUP = 7, 16_384  # rows of a row group
WAYS = {"streamed": "true", "in memory": "false"}


def write_table(source: Path, target: Path, rows: int) -> None:
    """Rows of the source's first row group, drawn with replacement."""
    some, rng = pq.ParquetFile(source).read_row_group(0), np.random.default_rng(SEED)
    with pq.ParquetWriter(target, some.schema) as writer:
        for start in range(0, rows, GROUP):
            writer.write_table(some.take(rng.integers(0, len(some), min(GROUP, rows - start))))


def load(settings: Any) -> float:
    """Rows per second of the second pass over the batches, which nothing else is done with."""
    data = module("data.datamodule").DataModule(settings)
    batches = data.train_dataloader()
    for _ in range(2):
        rows, start = 0, time.perf_counter()
        for batch in batches:
            rows += len(batch["label"])
        rate = rows / (time.perf_counter() - start)
    data.teardown("fit")
    return rate


def train(settings: Any) -> float:
    """Rows per second of an epoch's training steps; the labels' scale and what a network adapts to
    come before it.
    """
    from lightning.pytorch.callbacks import Callback

    class Watch(Callback):
        begun = ended = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.begun = time.perf_counter()

        def on_validation_start(self, *_: Any) -> None:
            self.ended = time.perf_counter()

    watch, path = Watch(), settings.paths.splits / "train.parquet"
    module("training.fit").fit_network(settings, None, callbacks=[watch])
    return float(pq.read_metadata(path).num_rows / (watch.ended - watch.begun))


def peak(workers: int) -> float:
    """Most memory held at once by this process and its workers, MiB."""
    import resource  # not on Windows

    kib = 1024 if sys.platform == "darwin" else 1
    own, status = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kib,
        Path("/proc/self/status"),
    )
    if status.is_file():  # getrusage would count what the parent held
        own = next(int(x.split()[1]) for x in status.read_text(encoding="utf-8").splitlines() if x.startswith("VmHWM"))
    return (own + workers * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / kib) / 1024


def measure(folder: Path, way: str, overrides: list[str]) -> dict[str, float]:
    """Rates and memory of one way, in a process of its own."""
    own = [
        f"paths.splits={folder}",
        f"paths.state={folder}/state",
        f"training.streaming={WAYS[way]}",
    ]
    fixed = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false"]
    done = subprocess.run(
        [sys.executable, __file__, "--part", *overrides, *own, *fixed],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ValueError(f"{way} failed: {done.stderr.strip()[-300:]}")
    return {f"{way}, {name}": value for name, value in json.loads(done.stdout.splitlines()[-1]).items()}


def bench(settings: Any, given: Namespace) -> dict[str, float]:
    splits, figures = settings.paths.splits, {}
    sizes = [given.rows // 8, given.rows // 4, given.rows // 2, given.rows]
    overrides = ["training.batch_size=512", *given.overrides]
    for rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_table(splits / "train.parquet", folder / "train.parquet", rows)
            write_table(splits / "val.parquet", folder / "val.parquet", 1_000)
            rounds = [
                {k: v for way in WAYS for k, v in measure(folder, way, overrides).items()} for _ in range(given.rounds)
            ]
        figures |= {f"{rows} rows: {name}": value for name, value in medians(rounds).items()}
    for name in [n.partition(": ")[2] for n in figures if n.startswith(f"{sizes[0]} ")]:
        figures[f"{name}: {sizes[-1]} rows, times {sizes[0]} rows"] = (
            figures[f"{sizes[-1]} rows: {name}"] / figures[f"{sizes[0]} rows: {name}"]
        )
    return figures


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=2_000_000, help="of the largest table")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--part", action="store_true", help="measure one way in this process, as the bench does")
    args = arguments.parse_intermixed_args()
    if args.part:
        settings = module("params").load(args.overrides)
        torch.set_num_threads(settings.training.num_threads)
        rates = {
            "loaded rows per second": load(settings),
            "trained rows per second": train(settings),
        }
        print(json.dumps({**rates, "peak MiB": peak(settings.training.workers)}))
    else:
        report("stream", bench, arguments)

"""Batches of a split that does not fit into memory, read from its Parquet file while training.

This process reads a window of row groups at a time; workers, where there are any, encode the rows
ahead of training.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..settings import Data
from ..task.features import Features, encode

Batch = dict[str, Any]
Item = TypeVar("Item")
Result = TypeVar("Result")
Segment = tuple[int, int, int]  # a row group, its first row to take, the row after the last
WINDOW, WINDOW_BYTES = 8, 2**28  # row groups whose rows are shuffled together, at most
CHUNK_BYTES = 2**20  # of inputs encoded at once: many small rows, or one batch of large ones
AHEAD = 2  # chunks per worker that are encoded before they are needed


def encoded(data: Data, rows: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Model inputs by name, each [n, ...], and labels [n]: index of a class (int64) or value
    (float32).
    """
    inputs = encode(rows, Features.model_validate(data.features))
    if data.kind == "regression":
        return inputs, rows["label"].to_numpy(np.float32, copy=True)
    index = {label: i for i, label in enumerate(data.labels)}
    return inputs, rows["label"].map(index).to_numpy(np.int64, copy=True)


def row_bytes(data: Data, path: Path) -> int:
    """Size of one row's inputs, which the first row of the file tells."""
    with pq.ParquetFile(path, buffer_size=2**20) as file:
        first = next(file.iter_batches(1, use_threads=False)).to_pandas()
    return sum(values.nbytes for values in encoded(data, first)[0].values())


def tensors(data: Data, rows: pa.Table) -> tuple[dict[str, Tensor], Tensor]:
    """What `encoded` makes of the rows, as tensors, which go from one process to another in shared
    memory.
    """
    inputs, label = encoded(data, rows.to_pandas(use_threads=False))
    return {name: torch.from_numpy(values) for name, values in inputs.items()}, torch.from_numpy(
        label
    )


class Workers:
    """Processes that work ahead; with a count of 0 the work is done in this process, when it is
    needed.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.pool = ProcessPoolExecutor(count, initializer=_begin_worker) if count else None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order of the items, whatever the count. Raises ValueError where a worker
        died.
        """
        if self.pool is None:
            yield from map(function, items)
            return
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(self.pool.submit(function, item))
                if len(ahead) > AHEAD * self.count:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BrokenProcessPool:
            raise ValueError(
                "a worker process died, most likely for lack of memory: use fewer training.workers or a smaller "
                "training.batch_size, then start again"
            ) from None
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """One thread; signals are the parent's business, without which no worker goes on."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(
        signal.SIGTERM, signal.SIG_DFL
    )  # a forked worker has the trainer's handler, and would not end
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class Stream:
    """Batches of {"inputs": {name: tensor}, "label": tensor}; ranks of a distributed run read
    shares of equal size.

    With a seed, row groups come in an order of each epoch's own, and rows are shuffled within a
    window of row groups.
    """

    def __init__(
        self,
        path: Path,
        data: Data,
        size: int,
        seed: int | None,
        rank: int,
        world: int,
        workers: Workers,
    ) -> None:
        self.path, self.data, self.size, self.seed, self.workers = path, data, size, seed, workers
        self.metadata = pq.read_metadata(path)
        self.columns = [
            name for name in self.metadata.schema.names if name not in ("id", "content")
        ]
        groups = [self.metadata.row_group(i) for i in range(self.metadata.num_row_groups)]
        self.rows: list[int] = [group.num_rows for group in groups]
        self.share, self.rank = math.ceil(sum(self.rows) / world), rank
        largest = max(1, *(group.total_byte_size for group in groups))
        self.window = 1 if seed is None else max(1, min(WINDOW, WINDOW_BYTES // largest))
        self.chunk = size * max(1, CHUNK_BYTES // (size * row_bytes(data, path)))

    def __len__(self) -> int:
        return math.ceil(self.share / self.size)

    def batches(self, epoch: int, position: int) -> Iterator[Batch]:
        """Those of an epoch from a position on."""
        for inputs, label in self.workers.map(
            partial(tensors, self.data), self._chunks(epoch, position)
        ):
            for i in range(0, len(label), self.size):
                part = slice(i, i + self.size)
                yield {
                    "inputs": {name: values[part] for name, values in inputs.items()},
                    "label": label[part],
                }

    def windows(self, epoch: int) -> list[list[Segment]]:
        """What is read together, in order: this rank's share of the row groups in the order of the
        epoch.
        """
        order = list(range(len(self.rows)))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order).tolist()
        segments, start = [], 0
        begin = self.rank * self.share % sum(self.rows)
        for group in (
            order * 2
        ):  # the shares may add up to more than there is: the last one goes on at the start
            first, end = max(begin - start, 0), min(begin + self.share - start, self.rows[group])
            if first < end:
                segments.append((group, first, end))
            start += self.rows[group]
        return [segments[i : i + self.window] for i in range(0, len(segments), self.window)]

    def _chunks(self, epoch: int, position: int) -> Iterator[pa.Table]:
        """Rows in the order of training, some whole batches at a time; windows before the position
        are not read.
        """
        behind, held, missing = position * self.size, list[pa.Table](), self.chunk
        for number, window in enumerate(self.windows(epoch)):
            order = np.arange(sum(end - first for _, first, end in window))
            if self.seed is not None:
                order = np.random.default_rng([self.seed, epoch, self.rank, number]).permutation(
                    order
                )
            behind, order = max(0, behind - len(order)), order[behind:]
            if not len(order):
                continue
            rows = self._read(window)
            while len(order):
                held.append(rows.take(order[:missing]))
                missing, order = max(0, missing - len(order)), order[missing:]
                if not missing:
                    yield pa.concat_tables(held)
                    held, missing = [], self.chunk
            del rows  # before the next window comes
        if held:
            yield pa.concat_tables(held)

    def _read(self, window: list[Segment]) -> pa.Table:
        # As one piece, because rows are then taken from it quickly. A reader of its own: one for
        # all windows would hold what it has read.
        with pq.ParquetFile(self.path, metadata=self.metadata, buffer_size=2**20) as file:
            groups = [
                (file.read_row_group(g, self.columns, use_threads=False), a, b)
                for g, a, b in window
            ]
        return pa.concat_tables([table.slice(a, b - a) for table, a, b in groups]).combine_chunks()

"""Batches of a split that does not fit into memory, read from its Parquet file while training.

A window is a few row groups from all over the file, whose rows are shuffled together; windows come
in an order of each epoch's own. The workers of a DataLoader read and encode them.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..settings import Settings
from .batches import Batch, encoded, training_position

GROUPS, WINDOW_BYTES = 8, 2**28  # row groups of a window, and their bytes, at most


class Stream(IterableDataset[Batch]):
    """Batches of {"inputs": {name: tensor}, "label": tensor}; a rank of a distributed run gets
    every world-th row of a window. A worker takes every so-manieth window.
    """

    def __init__(
        self, settings: Settings, path: Path, size: int, seed: int | None, rank: int, world: int
    ) -> None:
        self.data, self.path, self.size, self.seed = settings.data, path, size, seed
        self.rank, self.world, self.epoch, self.position = rank, world, 0, 0
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        largest = max(1, *(group.total_byte_size for group in groups))
        together = 1 if seed is None else max(1, min(GROUPS, WINDOW_BYTES // largest))
        num_windows = math.ceil(len(groups) / together)
        self.windows = [list(range(i, len(groups), num_windows)) for i in range(num_windows)]
        self.rows: list[int] = [sum(groups[i].num_rows for i in window) for window in self.windows]

    def num_batches(self, window: int) -> int:
        return math.ceil(math.ceil(self.rows[window] / self.world) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        worker, order = get_worker_info(), np.arange(len(self.windows))
        number, step = (worker.id, worker.num_workers) if worker else (0, 1)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        # The loader asks the workers in turn, so each has given its share of the batches before.
        skip = (self.position + step - 1 - number) // step
        for window in order[number::step].tolist():
            if skip < self.num_batches(window):
                yield from self.batches(window, skip)
            skip = max(0, skip - self.num_batches(window))

    def batches(self, window: int, first: int) -> Iterator[Batch]:
        """Those of a window, without the first ones."""
        # One reader for all windows would hold what it has read.
        with pq.ParquetFile(self.path, buffer_size=2**20) as file:
            names = [name for name in file.schema_arrow.names if name not in ("id", "content")]
            table = file.read_row_groups(self.windows[window], names, use_threads=False)
        rows = np.arange(len(table))
        if self.seed is not None:
            rows = np.random.default_rng([self.seed, self.epoch, window]).permutation(rows)
        padding = rows[: -len(rows) % self.world]  # ranks must take equally many steps
        rows = np.concatenate([rows, padding])[self.rank :: self.world]
        for start in range(first * self.size, len(rows), self.size):
            part = table.take(rows[start : start + self.size]).to_pandas(use_threads=False)
            inputs, label = encoded(self.data, part)
            tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
            yield {"inputs": tensors, "label": torch.from_numpy(label)}


class StreamLoader:
    """Passes over a stream; one begins where an interrupted epoch had come to."""

    def __init__(
        self,
        settings: Settings,
        path: Path,
        size: int,
        seed: int | None = None,
        trainer: L.Trainer | None = None,
    ) -> None:
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        self.stream = Stream(settings, path, size, seed, rank, world)
        self.workers, self.trainer = settings.training.workers, trainer

    def __len__(self) -> int:
        return sum(map(self.stream.num_batches, range(len(self.stream.windows))))

    def __iter__(self) -> Iterator[Any]:
        self.stream.epoch, self.stream.position = training_position(self.trainer)
        return iter(
            DataLoader(
                self.stream,
                batch_size=None,
                num_workers=self.workers,
                pin_memory=torch.cuda.is_available(),
            )
        )

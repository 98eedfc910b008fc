"""Splits as batches, from tensors in memory or from a stream, in an order that follows from seed
and epoch.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hydra.utils import instantiate
from torch import Tensor

from ..settings import Settings
from ..types import Examples
from .snapshot import chunks
from .stream import Batch, Stream, Workers, encoded, row_bytes

SAMPLE_ROWS, SAMPLE_BYTES = (
    50_000,
    2**28,
)  # of a split that is streamed: what is held of it in memory, at most


def split_path(settings: Settings, split: str) -> Path:
    path = settings.paths.splits / f"{split}.parquet"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `make pipeline` first")
    return path


def load(settings: Settings, split: str) -> Examples:
    """One split, encoded as the network takes it; of streamed data, which may not fit into memory,
    a fair sample.
    """
    path = split_path(settings, split)
    rows = _sample(settings, path) if settings.training.streaming else pd.read_parquet(path)
    return Examples(*encoded(settings.data, rows), rows)


def _sample(settings: Settings, path: Path) -> pd.DataFrame:
    """As many rows as may be held, each as likely as another, in their order: the same ones for a
    seed.
    """
    n = pq.read_metadata(path).num_rows
    size = min(n, SAMPLE_ROWS, max(1, SAMPLE_BYTES // row_bytes(settings.data, path)))
    chosen = np.sort(np.random.default_rng(settings.seed).choice(n, size, replace=False))
    parts = []
    for start, table in chunks(path):
        first, end = np.searchsorted(chosen, [start, start + len(table)])
        parts.append(table.take(chosen[first:end] - start))
    return pa.concat_tables(parts).to_pandas()


def label_scale(settings: Settings) -> float:
    """Standard deviation of the training labels, the unit of losses of values; 1 for classes."""
    if settings.data.kind != "regression":
        return 1.0
    n, mean, squares = 0, 0.0, 0.0  # chunk by chunk, after Chan, Golub, LeVeque 1979
    for _, table in chunks(split_path(settings, "train"), ["label"]):
        label = table["label"].to_numpy().astype(np.float64)
        more, shift = len(label), label.mean() - mean
        squares += label.var() * more + shift**2 * n * more / (n + more)
        n, mean = n + more, mean + shift * more / (n + more)
    return math.sqrt(squares / n)


class Batches:
    """Batches of {"inputs": {name: tensor}, "label": tensor}; of a distributed run, a rank gets
    every world-th row.
    """

    def __init__(
        self, examples: Examples, size: int, seed: int | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.inputs = {name: torch.from_numpy(values) for name, values in examples.inputs.items()}
        self.label = torch.from_numpy(examples.label)
        self.size, self.seed, self.rank, self.world = size, seed, rank, world

    def __len__(self) -> int:
        rows = math.ceil(len(self.label) / self.world)
        return math.ceil(rows / self.size)

    def order(self, epoch: int) -> Tensor:
        """Row numbers of this rank: shuffled by seed and epoch, or as they are where there is no
        seed.
        """
        n = len(self.label)
        if self.seed is None:
            order = torch.arange(n)
        else:
            order = torch.randperm(
                n, generator=torch.Generator().manual_seed(self.seed * 100_003 + epoch)
            )
        padding = -n % self.world  # ranks must take equally many steps
        return torch.cat([order, order[:padding]])[self.rank :: self.world]

    def batches(self, epoch: int, position: int) -> Iterator[Batch]:
        """Those of an epoch from a position on."""
        for rows in torch.split(self.order(epoch), self.size)[position:]:
            # Indexing by brackets takes twice the time.
            inputs = {name: values.index_select(0, rows) for name, values in self.inputs.items()}
            yield {"inputs": inputs, "label": self.label.index_select(0, rows)}


class Loader:
    """Passes over batches. Its state is the epoch, and the position: how many batches of it were
    given.

    `progress` tells both where a pass begins; without it a pass that ended is followed by the next
    one.
    """

    def __init__(
        self, source: Batches | Stream, progress: Callable[[], tuple[int, int]] | None = None
    ) -> None:
        self.source, self.progress = source, progress
        self.epoch = self.position = 0
        self.wait = self.seconds = 0.0  # of the last pass: spent on getting batches, and all

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        if self.progress is not None:
            self.epoch, self.position = self.progress()
        elif self.position == len(self):
            self.epoch, self.position = self.epoch + 1, 0
        self.wait, start = 0.0, time.perf_counter()
        asked = start
        for batch in self.source.batches(self.epoch, self.position):
            now = time.perf_counter()
            self.wait, self.seconds = self.wait + now - asked, now - start
            self.position += 1
            yield batch
            asked = time.perf_counter()

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class DataModule(L.LightningDataModule):
    """Training and validation batches of the splits on disk; augmentation runs on whole training
    batches.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.augment = instantiate(settings.augmentation) if settings.augmentation else None
        self.workers = Workers(settings.training.workers if settings.training.streaming else 0)

    def _source(self, split: str, seed: int | None) -> Batches | Stream:
        rank, world = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        size = self.settings.training.batch_size * (
            1 if split == "train" else 8
        )  # gradients take the memory
        if not self.settings.training.streaming:
            return Batches(load(self.settings, split), size, seed, rank, world)
        return Stream(
            split_path(self.settings, split),
            self.settings.data,
            size,
            seed,
            rank,
            world,
            self.workers,
        )

    def _progress(self) -> tuple[int, int]:
        """Epoch and batches done in it. A pass asks for it when its first batch is needed, after
        all was restored.

        The trainer itself would restore a loader's state in some cases alone: not from a checkpoint
        at an epoch's end, nor where the optimizers asked for the number of steps.
        """
        assert self.trainer is not None
        return self.trainer.current_epoch, self.trainer.fit_loop.batch_idx + 1

    def train_dataloader(self) -> Loader:
        # Overfitting one batch needs the same rows in every epoch.
        source = self._source(
            "train", None if self.settings.trainer.overfit_batches else self.settings.seed
        )
        self.passes = Loader(source, self._progress if self.trainer else None)
        return self.passes

    def val_dataloader(self) -> Loader:
        return Loader(self._source("val", None), lambda: (0, 0))

    @property
    def waited(self) -> float:
        """Share of the last pass over the training data that training waited for its batches, 0 to
        1.
        """
        return self.passes.wait / max(self.passes.seconds, 1e-9)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.trainer is None or self.trainer.strategy.root_device.type != "cuda":
            return batch
        inputs = {
            name: values.pin_memory() for name, values in batch["inputs"].items()
        }  # copied while the GPU works
        return {"inputs": inputs, "label": batch["label"].pin_memory()}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            return {**batch, "inputs": self.augment(batch["inputs"])}
        return batch

    def teardown(self, stage: str) -> None:
        self.workers.close()

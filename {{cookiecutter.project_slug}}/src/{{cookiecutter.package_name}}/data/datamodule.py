"""Splits as batches, in an order that follows from seed and epoch."""

import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from pyarrow.dataset import dataset
from torch import Tensor

from ..modeling import kinds
from ..settings import Data, Settings
from ..task.features import Features, encode
from ..types import Examples

Batch = dict[str, Any]
SAMPLE_ROWS, SAMPLE_BYTES = 50_000, 2**28  # in memory of a split that is streamed, at most


def encoded(data: Data, rows: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Model inputs by name, each [n, ...], and labels [n]: index of a class, or value."""
    inputs = encode(rows, Features.model_validate(data.features))
    return inputs, kinds.of(data.kind).encode_labels(rows["label"].to_numpy(), data.labels)


def split_path(settings: Settings, split: str) -> Path:
    path = settings.paths.splits / f"{split}.parquet"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `make pipeline` first")
    return path


def load(settings: Settings, split: str) -> Examples:
    """One split, encoded as the network takes it; of streamed data, which may not fit into memory,
    a sample drawn by the seed.
    """
    path = split_path(settings, split)
    rows = _sample(settings, path) if settings.training.streaming else pd.read_parquet(path)
    return Examples(*encoded(settings.data, rows), rows)


def _sample(settings: Settings, path: Path) -> pd.DataFrame:
    """Rows in their order, each as likely as another."""
    rows, rng = dataset(path), np.random.default_rng(settings.seed)
    inputs, _ = encoded(settings.data, rows.head(1).to_pandas())
    row_bytes = max(1, sum(values.nbytes for values in inputs.values()))
    size = min(rows.count_rows(), SAMPLE_ROWS, max(1, SAMPLE_BYTES // row_bytes))
    return rows.take(np.sort(rng.choice(rows.count_rows(), size, replace=False))).to_pandas()


def label_scale(settings: Settings) -> float:
    """Standard deviation of the training labels, the unit of losses of values; 1 for classes."""
    label = pd.read_parquet(split_path(settings, "train"), columns=["label"])["label"]
    return kinds.of(settings.data.kind).label_scale(label.to_numpy())


class Batches:
    """Batches of {"inputs": {name: tensor}, "label": tensor} from tensors in memory: cheaper than a
    DataLoader, which fetches row by row. With a trainer and a seed, rows are shuffled by seed and
    epoch, and a pass begins where an interrupted epoch had come to. Of a distributed run, a rank
    gets every world-th row.
    """

    def __init__(
        self,
        examples: Examples,
        size: int,
        seed: int | None = None,
        trainer: L.Trainer | None = None,
    ) -> None:
        self.inputs = {name: torch.from_numpy(values) for name, values in examples.inputs.items()}
        self.label = torch.from_numpy(examples.label)
        self.size, self.seed, self.trainer = size, seed, trainer
        self.rank, self.world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.label) / self.world) / self.size)

    def order(self, epoch: int) -> Tensor:
        """Row numbers of this rank: shuffled, or as they are where there is no seed."""
        order = torch.arange(len(self.label))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
            order = torch.randperm(len(self.label), generator=generator)
        padding = order[: -len(order) % self.world]  # ranks must take equally many steps
        return torch.cat([order, padding])[self.rank :: self.world]

    def __iter__(self) -> Iterator[Batch]:
        epoch, position = training_position(self.trainer)
        for rows in torch.split(self.order(epoch), self.size)[position:]:
            # Indexing by brackets takes twice the time.
            inputs = {name: values.index_select(0, rows) for name, values in self.inputs.items()}
            yield {"inputs": inputs, "label": self.label.index_select(0, rows)}


def training_position(trainer: L.Trainer | None) -> tuple[int, int]:
    """The epoch, and how many of its batches are done: more than 0 only after resuming."""
    if trainer is None or not trainer.training:
        return 0, 0
    return trainer.current_epoch, trainer.fit_loop.batch_idx + 1


class DataModule(L.LightningDataModule):
    """Training and validation batches of the splits on disk; augmentation runs on whole batches."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.augment = instantiate(settings.augmentation) if settings.augmentation else None

    def _batches(self, split: str, size: int, seed: int | None) -> Any:
        if not self.settings.training.streaming:
            return Batches(load(self.settings, split), size, seed, self.trainer)
        loader = import_module(".stream", __package__).StreamLoader  # the full profile has it
        return loader(self.settings, split_path(self.settings, split), size, seed, self.trainer)

    def train_dataloader(self) -> Any:
        size = self.settings.training.batch_size * self.settings.trainer.batches_per_step
        # Overfitting one batch needs the same rows in every epoch.
        shuffled = not self.settings.trainer.overfit_batches
        return self._batches("train", size, self.settings.seed if shuffled else None)

    def val_dataloader(self) -> Any:
        size = 8 * self.settings.training.batch_size  # it is gradients that take the memory
        return self._batches("val", size, None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            return {**batch, "inputs": self.augment(batch["inputs"])}
        return batch

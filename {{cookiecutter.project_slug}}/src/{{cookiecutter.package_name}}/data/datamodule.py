"""Splits as tensors in memory, and batches cut from them whole, in an order that follows from seed and epoch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from torch import Tensor

from ..settings import Settings
from .features import Features, encode

Batch = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """Model inputs by name, each [n, ...]; label [n], index of a class or value; and the rows they come from."""

    inputs: dict[str, NDArray[Any]]
    label: NDArray[Any]
    rows: pd.DataFrame

    def __len__(self) -> int:
        return len(self.label)


def load(settings: Settings, split: str) -> Examples:
    """One split, encoded as the network takes it."""
    path = settings.paths.splits / f"{split}.parquet"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `make pipeline` first")
    rows = pd.read_parquet(path)
    inputs = encode(rows, Features.model_validate(settings.data.features))
    if settings.data.kind == "regression":
        return Examples(inputs, rows["label"].to_numpy(np.float32, copy=True), rows)
    index = {label: i for i, label in enumerate(settings.data.labels)}
    return Examples(inputs, rows["label"].map(index).to_numpy(np.int64, copy=True), rows)


def label_scale(settings: Settings) -> float:
    """Standard deviation of the training labels, the unit of losses of values; 1 for classes."""
    if settings.data.kind != "regression":
        return 1.0
    return float(pd.read_parquet(settings.paths.splits / "train.parquet", columns=["label"])["label"].std(ddof=0))


class Batches:
    """Batches of {"inputs": {name: tensor}, "label": tensor}; of a distributed run, a rank gets every world-th row."""

    def __init__(self, examples: Examples, size: int, seed: int | None = None, rank: int = 0, world: int = 1) -> None:
        self.inputs = {name: torch.from_numpy(values) for name, values in examples.inputs.items()}
        self.label = torch.from_numpy(examples.label)
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.epoch = 0

    def __len__(self) -> int:
        rows = math.ceil(len(self.label) / self.world)
        return math.ceil(rows / self.size)

    def order(self) -> Tensor:
        """Row numbers of this rank: shuffled by seed and epoch, or as they are where there is no seed."""
        n = len(self.label)
        if self.seed is None:
            order = torch.arange(n)
        else:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed * 100_003 + self.epoch))
        padding = -n % self.world  # ranks must take equally many steps
        return torch.cat([order, order[:padding]])[self.rank :: self.world]

    def __iter__(self) -> Iterator[Batch]:
        order = self.order()
        self.epoch += 1
        for rows in torch.split(order, self.size):
            yield {"inputs": {name: values[rows] for name, values in self.inputs.items()}, "label": self.label[rows]}


class DataModule(L.LightningDataModule):
    """Training and validation batches of the splits on disk; augmentation runs on whole training batches."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.augment = instantiate(settings.augmentation) if settings.augmentation else None

    def setup(self, stage: str) -> None:
        self.train, self.val = load(self.settings, "train"), load(self.settings, "val")

    def _batches(self, examples: Examples, seed: int | None) -> Batches:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return Batches(examples, self.settings.training.batch_size, seed, rank, world)

    def train_dataloader(self) -> Batches:
        # Overfitting one batch needs the same rows in every epoch.
        return self._batches(self.train, None if self.settings.trainer.overfit_batches else self.settings.seed)

    def val_dataloader(self) -> Batches:
        return self._batches(self.val, None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.augment is not None and self.trainer is not None and self.trainer.training:
            return {**batch, "inputs": self.augment(batch["inputs"])}
        return batch

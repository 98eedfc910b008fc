"""Splits on disk, as examples and as batches in an order that follows from seed and epoch."""

from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from hydra.utils import instantiate
from pyarrow.dataset import dataset

from ..modeling import kinds
from ..settings import Settings
from ..types import Examples, Inputs
from .batches import Batch, Batches, encoded

SAMPLE_ROWS, SAMPLE_BYTES = 50_000, 2**28  # in memory of a split that is streamed, at most


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


def first_rows(settings: Settings, split: str, num: int = 2) -> Inputs:
    """Model inputs of a few rows, without reading the others."""
    rows = dataset(split_path(settings, split)).head(num).to_pandas()
    return encoded(settings.data, rows)[0]


def _sample(settings: Settings, path: Path) -> pd.DataFrame:
    """Rows in their order, each as likely as another."""
    rows, rng = dataset(path), np.random.default_rng(settings.seed)
    inputs = first_rows(settings, path.stem, 1)
    row_bytes = max(1, sum(values.nbytes for values in inputs.values()))
    size = min(rows.count_rows(), SAMPLE_ROWS, max(1, SAMPLE_BYTES // row_bytes))
    return rows.take(np.sort(rng.choice(rows.count_rows(), size, replace=False))).to_pandas()


def label_scale(settings: Settings) -> float:
    """Standard deviation of the training labels, the unit of losses of values; 1 for classes."""
    label = pd.read_parquet(split_path(settings, "train"), columns=["label"])["label"]
    return float(kinds.of(settings.data.kind).label_scale(label.to_numpy()))


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

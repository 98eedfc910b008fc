"""Rows as a network takes them, and batches of those that are in memory."""

import math
from collections.abc import Iterator
from typing import Any

import lightning as L
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modeling import kinds
from ..settings import Data
from ..task.features import Features, encode
from ..types import Examples

Batch = dict[str, Any]


def encoded(data: Data, rows: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Model inputs by name, each [n, ...], and labels [n]: index of a class, or value."""
    inputs = encode(rows, Features.model_validate(data.features))
    return inputs, kinds.of(data.kind).encode_labels(rows["label"].to_numpy(), data.labels)


def training_position(trainer: L.Trainer | None) -> tuple[int, int]:
    """The epoch, and how many of its batches are done: more than 0 only after resuming."""
    if trainer is None or not trainer.training:
        return 0, 0
    return trainer.current_epoch, trainer.fit_loop.batch_idx + 1


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

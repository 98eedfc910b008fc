"""Small networks on made-up rows of two classes, trained with the project's own module in a
fraction of a second.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from harness import lay_out, module
from torch import Tensor, nn

Batch = dict[str, Any]


class Rows:
    """`n` rows of 8 numbers in batches of 32, labelled by `answer`; `change` may depend on the pass
    over them.
    """

    def __init__(
        self, n: int, answer: Callable[[Tensor], Tensor], seed: int = 0, change: Any = None
    ) -> None:
        x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
        self.batches = [
            {"inputs": {"x": part}, "label": answer(part)} for part in torch.split(x, 32)
        ]
        self.change, self.passes = change, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        self.passes += 1
        for batch in self.batches:
            yield self.change(self.passes, batch) if self.change else batch


class Data(L.LightningDataModule):
    def __init__(self, train: Rows, val: Rows, waited: float = 0.0) -> None:
        super().__init__()
        self.train, self.val, self.waited = train, val, waited

    def train_dataloader(self) -> Rows:
        return self.train

    def val_dataloader(self) -> Rows:
        return self.val


class Net(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x


def deep(
    activation: type[nn.Module], layers: int = 2, width: int = 16, std: float | None = None
) -> Net:
    found: list[nn.Module] = []
    for i in range(layers):
        found += [nn.Linear(width if i else 8, width), activation()]
    net = Net(*found, nn.Linear(width, 2))
    for weight in net.parameters():
        if std is not None and weight.ndim > 1:
            nn.init.normal_(weight, std=std)
    return net


def side(x: Tensor) -> Tensor:
    """Easy to learn, with a few rows that cannot be."""
    return (x[:, 0] + x[:, 1] + 0.3 * x[:, 2:].sin().sum(1) > 0).long()


def noise(x: Tensor) -> Tensor:
    return (x.sin().sum(1) * 1e4).long().abs() % 2


def xor(x: Tensor) -> Tensor:
    return (x[:, 0] * x[:, 1] > 0).long()


def two_classes(folder: Path) -> Any:
    """The shipped settings for a task of two classes."""
    before = Path.cwd()
    lay_out(folder)
    settings = module("params").load([])
    os.chdir(before)
    data = settings.data.model_copy(update={"kind": "binary", "labels": ["no", "yes"]})
    loss = {"_target_": "torch.nn.CrossEntropyLoss"}
    return settings.model_copy(update={"data": data, "loss": loss, "scheduler": None})


def fit(
    fitted: L.LightningModule,
    data: L.LightningDataModule,
    callback: L.Callback,
    epochs: int,
    **options: Any,
) -> L.Trainer:
    module("training.fit").quiet()
    torch.set_num_threads(1)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=1.0,
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(fitted, datamodule=data, **options)
    return trainer

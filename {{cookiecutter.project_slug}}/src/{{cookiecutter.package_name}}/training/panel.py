"""What the network says about the same validation rows after every epoch, in the run as
panel/epoch-001.* (E4).
"""

import tempfile
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from pyarrow.dataset import dataset

from ..data.batches import encoded
from ..data.datamodule import split_path
from ..modeling import kinds
from ..modeling.module import Module
from ..settings import Settings
from ..task import view
from ..task.features import Features
from ..tracking import Run
from ..types import Rule

ROWS = 16


def choose(label: NDArray[np.generic], seed: int, num: int = ROWS) -> NDArray[np.int64]:
    """Numbers of at most `num` rows, as many of each class as there are, in the order of their
    labels [n].
    """
    shuffled = np.random.default_rng(seed).permutation(len(label))
    # The first row of every class, then the second.
    turn = pd.Series(shuffled).groupby(label[shuffled]).cumcount()
    rows = shuffled[np.argsort(turn, kind="stable")][:num]
    return rows[np.argsort(label[rows], kind="stable")]


def examples(settings: Settings) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Inputs and labels of the chosen rows; no other row is decoded, for there may be many."""
    rows = dataset(split_path(settings, "val"))
    label = rows.to_table(["label"])["label"].to_numpy()
    return encoded(settings.data, rows.take(choose(label, settings.seed)).to_pandas())


class Panel(Callback):
    """One file per epoch, drawn by the task's `view`; an epoch that is done again after a resume
    replaces its own.
    """

    def __init__(self, settings: Settings, run: Run) -> None:
        self.settings = settings
        self.run = run
        self.of = Features.model_validate(settings.data.features)
        self.inputs, self.label = examples(settings)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        inputs = {
            name: torch.from_numpy(values).to(module.device) for name, values in self.inputs.items()
        }
        network = cast(Module, module).network  # a module of the owner's keeps one as well
        raw, _ = network(**trainer.precision_plugin.convert_input(inputs))
        kind = kinds.of(self.settings.data.kind)
        names = self.settings.data.labels
        answers = kind.decide(raw.float().cpu().numpy(), Rule())
        table = pd.DataFrame(kind.table(answers, self.label, names))
        content = view.view(self.inputs, table, self.of)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"epoch-{trainer.current_epoch + 1:03}.{view.SUFFIX}"
            file.write_bytes(content)
            self.run.artifacts([file], "panel")

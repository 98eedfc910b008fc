"""Networks: `forward` takes the model inputs by name and gives raw outputs [n, k] and an embedding
[n, e].
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..settings import Kind
from .features import Features

EMBEDDING = 4  # numbers that stand for a category, at most
# standard deviations from the mean; beyond, a number counts as that far: one slip must not decide
FARTHEST = 3.0


class Mlp(nn.Module):
    """Standardised numbers, a flag for each missing one and an embedding for each category, through
    `depth` layers.

    An embedding is a linear map of a one-hot vector, so gradients reach every input.
    """

    mean: Tensor
    scale: Tensor
    label_mean: Tensor
    label_scale: Tensor

    def __init__(
        self,
        num_outputs: int,
        kind: Kind,
        features: dict[str, Any],
        width: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        columns, self.kind = Features.model_validate(features), kind
        self.blocks = list(columns.blocks.values())
        sizes = [len(values) for values in columns.categorical.values()]
        embedded = [min(size, EMBEDDING) for size in sizes]
        self.embeddings = nn.ModuleList(
            nn.Linear(size, small, bias=False) for size, small in zip(sizes, embedded, strict=True)
        )
        entering = 2 * len(columns.numeric) + sum(embedded)
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(width if i else entering, width), nn.SiLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, num_outputs)
        self.register_buffer("mean", torch.zeros(len(columns.numeric)))
        self.register_buffer("scale", torch.ones(len(columns.numeric)))
        self.register_buffer("label_mean", torch.zeros(()))
        self.register_buffer("label_scale", torch.ones(()))

    def adapt(self, inputs: dict[str, NDArray[Any]], label: NDArray[Any]) -> None:
        """Takes mean and deviation of each numeric column's present values, and of a numeric label,
        as units.
        """
        if "numeric" in inputs:
            numeric = np.ma.masked_array(inputs["numeric"], inputs["missing"], dtype=np.float64)
            deviation = numeric.std(axis=0).filled(0)
            self.mean.copy_(torch.from_numpy(numeric.mean(axis=0).filled(0)))
            self.scale.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1)))
        if self.kind == "regression":
            self.label_mean.fill_(float(label.mean()))
            self.label_scale.fill_(float(label.std()) + 1e-6)

    def forward(
        self,
        numeric: Tensor | None = None,
        missing: Tensor | None = None,
        categorical: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        parts = []
        if numeric is not None and missing is not None:
            standard = ((numeric - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST)
            parts += [standard * (1 - missing), missing]
        if categorical is not None:
            parts += [
                embed(categorical[:, block])
                for embed, block in zip(self.embeddings, self.blocks, strict=True)
            ]
        embedding = self.body(torch.cat(parts, dim=1))
        raw = self.head(embedding)
        if self.kind == "regression":
            value = raw[:, :1] * self.label_scale + self.label_mean
            raw = torch.cat([value, raw[:, 1:] + self.label_scale.log()], dim=1)
        return raw, embedding

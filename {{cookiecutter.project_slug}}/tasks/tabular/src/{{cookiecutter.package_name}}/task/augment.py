"""Augmentations: modules that change a batch of model inputs, applied in training alone."""

from typing import Any

import torch
from torch import Tensor, nn

from .features import Features


class Disturb(nn.Module):
    """Adds noise to numbers, in standard deviations; drops optional ones; replaces categories by
    any of the column.

    What the network has seen vary, it does not lean on.
    """

    def __init__(
        self, noise: float, missing: float, category: float, features: dict[str, Any]
    ) -> None:
        super().__init__()
        self.noise, self.missing, self.category = noise, missing, category
        self.columns = Features.model_validate(features)
        self.may_miss = torch.from_numpy(self.columns.may_miss)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        changed = dict(inputs)
        if "numeric" in inputs:
            numeric, gaps = inputs["numeric"], inputs["missing"]
            dropped = (torch.rand_like(numeric) < self.missing) & self.may_miss.to(numeric.device)
            missing = torch.maximum(dropped.to(numeric.dtype), gaps)
            noise = self._deviation(numeric, 1 - gaps) * torch.randn_like(numeric)
            numeric = (numeric + self.noise * noise) * (1 - missing)
            changed |= {"numeric": numeric, "missing": missing}
        if "categorical" in inputs:
            blocks = self.columns.blocks.values()
            one_hot = [self._replaced(inputs["categorical"][:, block]) for block in blocks]
            changed["categorical"] = torch.cat(one_hot, dim=1)
        return changed

    @staticmethod
    def _deviation(numeric: Tensor, present: Tensor) -> Tensor:
        """Standard deviation [d] of the values of the batch that are present."""
        count = present.sum(dim=0).clamp(min=1)
        mean = (numeric * present).sum(dim=0) / count
        return (((numeric - mean) ** 2 * present).sum(dim=0) / count).sqrt()

    def _replaced(self, one_hot: Tensor) -> Tensor:
        n, k = one_hot.shape
        drawn = nn.functional.one_hot(torch.randint(k, (n,), device=one_hot.device), k)
        hit = torch.rand(n, 1, device=one_hot.device) < self.category
        return torch.where(hit, drawn.to(one_hot.dtype), one_hot)

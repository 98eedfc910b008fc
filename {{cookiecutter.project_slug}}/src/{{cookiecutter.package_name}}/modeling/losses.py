"""Losses that PyTorch does not have."""

from typing import Any

import torch
from hydra.utils import get_class, instantiate
from torch import Tensor, nn
from torch.nn import functional

from ..settings import Component, Kind
from . import kinds


def build_loss(component: Component, kind: Kind, num_outputs: int) -> nn.Module:
    """The configured loss, tried on two rows. Raises ValueError where it does not go with this kind
    of task.
    """
    loss, label = instantiate(component), torch.tensor([0, 1])
    assert isinstance(loss, nn.Module)
    try:
        loss(torch.zeros(2, num_outputs), kinds.of(kind).target(label))
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{component['_target_']} is no loss for kind {kind} ({reason}): try `loss=default`"
        ) from error
    return loss


def default(kind: Kind, **options: Any) -> nn.Module:
    """The loss of the kind."""
    loss: nn.Module = get_class(kinds.of(kind).LOSS_TARGET)(**options)
    return loss


class FocalLoss(nn.Module):
    """Mean of (1 - p)^gamma * -log p of the true class (Lin et al. 2017, arXiv:1708.02002); 0 is
    cross-entropy.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError("loss.gamma must be 0, which is cross-entropy, or more")
        self.gamma = gamma

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        log_p = -functional.cross_entropy(logits, label, reduction="none")
        return -((1 - log_p.exp()) ** self.gamma * log_p).mean()

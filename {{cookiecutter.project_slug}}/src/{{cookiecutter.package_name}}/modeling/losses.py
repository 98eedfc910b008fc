"""Losses that PyTorch does not have."""

from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """Mean of (1 - p)^gamma * -log p of the true class (Lin et al. 2017, arXiv:1708.02002); 0 is cross-entropy."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        log_p = -functional.cross_entropy(logits, label, reduction="none")
        return -((1 - log_p.exp()) ** self.gamma * log_p).mean()

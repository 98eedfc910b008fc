"""Losses of raw [n, 2], value and log deviation, and label [n]."""

from torch import Tensor, nn
from torch.nn import functional


def _values(raw: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    if not label.is_floating_point():
        raise ValueError("it takes values, and these are classes")
    return raw[:, 0], raw[:, 1]


class HuberWithDeviation(nn.Module):
    """Huber loss of the value, and the Gaussian likelihood of its residual for the deviation.

    The residual is held fixed there: else the deviation excuses hard rows, and the value stops
    learning them (Seitzer et al. 2022, arXiv:2203.09168).
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, raw: Tensor, label: Tensor) -> Tensor:
        value, log_deviation = _values(raw, label)
        residual = (label - value).detach()
        likelihood = log_deviation + 0.5 * (residual / log_deviation.exp()) ** 2
        return functional.huber_loss(value, label, delta=self.delta) + likelihood.mean()


class GaussianLoss(nn.Module):
    """Negative log likelihood of a Gaussian (Nix and Weigend 1994), less its constant."""

    def forward(self, raw: Tensor, label: Tensor) -> Tensor:
        value, log_deviation = _values(raw, label)
        return (log_deviation + 0.5 * ((label - value) / log_deviation.exp()) ** 2).mean()

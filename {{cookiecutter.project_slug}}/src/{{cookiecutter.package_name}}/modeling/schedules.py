"""Learning-rate schedules stepped once per optimizer step; `total_steps` comes from the trainer."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


def cosine_with_warmup(optimizer: Optimizer, total_steps: int, warmup: float) -> LambdaLR:
    """Rises linearly over the first `warmup` share of the steps, then falls to zero along half a
    cosine.
    """
    if not 0 <= warmup < 1:
        raise ValueError("scheduler.warmup is a share of all steps: 0 or more, and less than 1")
    rise = max(1, round(warmup * total_steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total_steps - rise))))

    return LambdaLR(optimizer, factor)


def one_cycle(optimizer: Optimizer, total_steps: int, warmup: float) -> OneCycleLR:
    """Smith and Topin 2018, arXiv:1708.07120; the peak is the optimizer's own learning rate."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, max_lr=peaks, total_steps=total_steps, pct_start=warmup)

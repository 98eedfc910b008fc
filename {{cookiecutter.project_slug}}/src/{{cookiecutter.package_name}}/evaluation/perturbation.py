"""M7: the score under graded perturbations and under gradient attacks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import nn

from ..modeling import kinds
from ..settings import Kind, Perturbation
from ..types import Inputs
from .verdict import Verdict, not_declared, outcome

SEVERITIES = (1, 2, 3, 4, 5)
Score = Callable[[Inputs], float]


def curves(
    score: Score,
    inputs: Inputs,
    perturbations: dict[str, Callable[[Inputs, int, Generator], Inputs]],
    rng: Generator,
) -> dict[str, list[float]]:
    """Score (accuracy or R²) at severity 1 to 5 for each perturbation."""
    return {
        name: [score(change(inputs, severity, rng)) for severity in SEVERITIES]
        for name, change in perturbations.items()
    }


def attack(
    network: nn.Module,
    kind: Kind,
    inputs: Inputs,
    label: NDArray[Any],
    ranges: dict[str, tuple[Any, Any]],
    epsilon: float,
    steps: int,
) -> Inputs:
    """Inputs moved by at most epsilon of their range each way so that the loss of the kind rises.

    One step is FGSM (Goodfellow et al. 2015, arXiv:1412.6572); several are PGD (Madry et al. 2018,
    arXiv:1706.06083). Inputs that have no range stay as they are.
    """
    fixed = {k: torch.from_numpy(v) for k, v in inputs.items()}
    bounds = {
        k: tuple(torch.as_tensor(b, dtype=torch.float32) for b in ranges[k])
        for k in ranges
        if k in fixed
    }
    target, moved = torch.from_numpy(label), {k: fixed[k].clone() for k in bounds}
    step = epsilon if steps == 1 else 2.5 * epsilon / steps
    for _ in range(steps):
        for value in moved.values():
            value.requires_grad_(True)
        loss = kinds.of(kind).attack_loss(network(**{**fixed, **moved})[0], target)
        gradients = torch.autograd.grad(loss, list(moved.values()))
        for (name, value), gradient in zip(list(moved.items()), gradients, strict=True):
            low, high = bounds[name]
            size = high - low
            change = value.detach() + step * size * gradient.sign() - fixed[name]
            change = torch.clamp(change, -epsilon * size, epsilon * size)
            # What lies outside of its range already is not moved back into it.
            lowest, highest = torch.minimum(low, fixed[name]), torch.maximum(high, fixed[name])
            moved[name] = torch.clamp(fixed[name] + change, lowest, highest)
    return {**inputs, **{k: v.detach().numpy() for k, v in moved.items()}}


def judge(
    clean: float,
    curves: dict[str, list[float]],
    attacks: dict[str, float],
    settings: Perturbation,
) -> Verdict:
    """Robustness: mean score at the configured severity as a share of the clean one; attacks have a
    floor too.
    """
    if not curves:
        return not_declared("M7", "Perturbation")
    scores = {name: curve[settings.severity - 1] for name, curve in curves.items()}
    whole = max(clean, 1e-9)
    robustness = float(np.mean(list(scores.values()))) / whole
    worst = min(scores, key=lambda name: scores[name])
    weakest = min(attacks.values(), default=whole) / whole
    why = f"keeps {robustness:.0%} of its score at severity {settings.severity}"
    why += f", {scores[worst] / whole:.0%} under the worst, {worst}"
    if attacks:
        why += f"; {weakest:.0%} under attack, must be at least {settings.min_adversarial:.0%}"
    else:
        why += "; attacks need gradients: not applicable"
    passed = outcome(robustness >= settings.min_robustness and weakest >= settings.min_adversarial)
    details = {"clean": clean, "curves": curves, "attacks": attacks, "worst": worst}
    number, limit = round(robustness, 4), settings.min_robustness
    return Verdict("M7", "Perturbation", passed, number, limit, why, details)

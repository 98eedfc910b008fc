"""M7: accuracy under graded perturbations and under gradient attacks."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ..settings import Perturbation
from .verdict import Verdict, outcome

Inputs = dict[str, NDArray[Any]]
Predict = Callable[[Inputs], NDArray[np.int64]]
SEVERITIES = (1, 2, 3, 4, 5)


def curves(
    predict: Predict, inputs: Inputs, label: NDArray[np.int64], perturbations: dict[str, Any], rng: Generator
) -> dict[str, list[float]]:
    """Accuracy at severity 1 to 5 for each perturbation."""
    return {
        name: [float((predict(change(inputs, severity, rng)) == label).mean()) for severity in SEVERITIES]
        for name, change in perturbations.items()
    }


def attack(
    network: nn.Module, inputs: Inputs, label: NDArray[np.int64], scale: dict[str, float], epsilon: float, steps: int
) -> Inputs:
    """Inputs moved by at most epsilon * scale each way so that the loss rises.

    One step is FGSM (Goodfellow et al. 2015, arXiv:1412.6572); several are PGD (Madry et al. 2018, arXiv:1706.06083).
    Inputs that are not in `scale` stay as they are.
    """
    fixed = {k: torch.from_numpy(v) for k, v in inputs.items()}
    moved = {k: fixed[k].clone() for k in scale}
    target = torch.from_numpy(label)
    step = epsilon if steps == 1 else 2.5 * epsilon / steps
    for _ in range(steps):
        for value in moved.values():
            value.requires_grad_(True)
        loss = functional.cross_entropy(network(**{**fixed, **moved})[0], target)
        gradients = torch.autograd.grad(loss, list(moved.values()))
        for (name, value), gradient in zip(list(moved.items()), gradients, strict=True):
            change = (value.detach() + step * scale[name] * gradient.sign() - fixed[name]).clamp(
                -epsilon * scale[name], epsilon * scale[name]
            )
            moved[name] = (fixed[name] + change).clamp(0, scale[name])
    return {**inputs, **{k: v.detach().numpy() for k, v in moved.items()}}


def judge(clean: float, found: dict[str, list[float]], attacked: dict[str, float], settings: Perturbation) -> Verdict:
    """Robustness: mean accuracy at the configured severity as a share of the clean one; attacks have a floor."""
    at_severity = {name: curve[settings.severity - 1] for name, curve in found.items()}
    robustness = float(np.mean(list(at_severity.values()))) / max(clean, 1e-9)
    worst = min(at_severity, key=lambda name: at_severity[name])
    weak_attack = min(attacked.values(), default=1.0)
    why = f"keeps {robustness:.0%} of its accuracy at severity {settings.severity}"
    why += f"; worst is {worst} with {at_severity[worst]:.1%}"
    why += (
        f"; under attack {weak_attack:.1%}, must be at least {settings.min_adversarial:.0%}"
        if attacked
        else "; attacks need gradients: not applicable"
    )
    passed = robustness >= settings.min_robustness and weak_attack >= settings.min_adversarial
    details = {"curves": found, "attacks": attacked, "worst": worst}
    return Verdict("M7", "Perturbation", outcome(passed), round(robustness, 4), settings.min_robustness, why, details)

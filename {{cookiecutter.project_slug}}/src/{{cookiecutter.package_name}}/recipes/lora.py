"""LoRA: a pretrained network adapted by small matrices beside its frozen weights (Hu et al. 2021,
arXiv:2106.09685).

The pretrained checkpoint is that of artifacts/model; what it is adapted to are inputs changed by a
perturbation that evaluation/behaviour.py declares.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..data.datamodule import label_scale
from ..modeling.module import Module
from ..task.behaviour import declare
from .recipe import Inputs, Row, Variants, raw, size, trained


class LowRank(nn.Module):
    """Adds B·A to a weight [out, ...]: A [rank, in] starts random, B [out, rank] at zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        self.a = nn.Parameter(torch.randn(rank, columns, device=weight.device) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def adapt(network: nn.Module, rank: int) -> nn.Module:
    """Freezes the network and gives every linear layer and convolution an adapter, in place."""
    network.requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()  # it keeps its statistics; Lightning leaves a layer's mode as it is
    for layer in [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank))
    return network


def trained_weights(network: nn.Module) -> dict[str, Tensor]:
    """Of an adapted network, all that it adds to the pretrained one."""
    return {
        name: p.detach().contiguous() for name, p in network.named_parameters() if p.requires_grad
    }


def merge(network: nn.Module) -> nn.Module:
    """Puts the adapters into plain weights, in place: as large and as fast as before, under the
    same names.
    """
    for layer in network.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    return network.requires_grad_(True)


class Shifted(Module):
    """Trains and validates on inputs changed by a perturbation; validation by the same draws in
    every epoch.
    """

    change: Callable[[Inputs, int], Inputs]  # of inputs and a seed

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        arrays = {name: values.cpu().numpy() for name, values in inputs.items()}
        arrays = self.change(arrays, self.global_step if self.training else 0)
        return super().forward({n: torch.from_numpy(v).to(self.device) for n, v in arrays.items()})


def recipe(variants: Variants, shift: str = "", severity: int = 3, rank: int = 4) -> None:
    """The pretrained network on changed inputs: as it is, fine-tuned whole, and fine-tuned by
    adapters of that rank.

    `shift` is the name of a declared perturbation; without it, the first. "trained" counts the
    numbers that were trained, "KiB" is what has to be stored for the result.
    """
    settings = variants.settings
    shifts = declare(variants.settings.data).perturbations
    shift = shift or next(iter(shifts), "")
    if shift not in shifts:
        text = f"no perturbation {shift!r} in task/behaviour.py: choose shift=... of"
        raise ValueError(f"{text} {', '.join(shifts)}")
    pretrained = trained(settings)
    networks = {"full": copy.deepcopy(pretrained), "LoRA": adapt(copy.deepcopy(pretrained), rank)}

    def change(inputs: Inputs, seed: int = 0) -> Inputs:
        return shifts[shift](inputs, severity, np.random.default_rng([settings.seed, seed]))

    costs = size(pretrained)
    name = f"pretrained, on {shift} {severity}"
    variants.add(name, raw(pretrained), {"trained": 0, "KiB": costs["KiB"]}, change)
    for name, network in networks.items():
        module = Shifted(settings, network, label_scale(settings))
        module.change = change
        network, seconds = variants.fit(name, settings, lambda _: module)  # noqa: B023
        weights = trained_weights(network)
        file = variants.folder / f"{name}.safetensors"
        save_file(weights, file)
        row: Row = {"trained": sum(t.numel() for t in weights.values())}
        row |= {"KiB": file.stat().st_size / 1024, **seconds}
        variants.add(name, raw(merge(network)), row, change, file)

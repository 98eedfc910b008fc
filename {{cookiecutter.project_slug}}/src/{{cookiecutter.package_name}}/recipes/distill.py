"""Distillation: a smaller student learns from the trained network (Hinton 2015,
arXiv:1503.02531).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..modeling.module import Module
from ..params import load
from ..settings import Settings
from ..training.fit import build_module
from .recipe import Variants, latency, raw, size, trained


def recipe(
    variants: Variants, student: str = "", temperature: float = 4.0, share: float = 0.5
) -> None:
    """Teacher, student alone and student taught; `share` of the loss is the teacher's, the rest the
    labels'.

    `student` is an override such as model.width=8; without it, half the width.
    """
    small = smaller(variants.settings, student)
    teacher = trained(variants.settings)

    def taught(settings: Settings) -> Module:
        module = Taught(settings, build_module(settings), teacher.eval())
        module.temperature = temperature
        module.share = share
        return module

    networks: dict[str, tuple[nn.Module, dict[str, Any]]] = {"teacher": (teacher, {})}
    networks["student alone"] = variants.fit("student alone", small)
    networks["student taught"] = variants.fit("student taught", small, taught)
    for name, (network, costs) in networks.items():
        times = latency(raw(network), variants.examples("test").inputs)
        variants.add(name, raw(network), {**size(network), **times, **costs})


class Taught(Module):
    """Learns the labels and a frozen teacher's answers.

    Of classes, the probabilities at a temperature, with its square as weight; of a regression,
    value and log deviation.
    """

    temperature: float
    share: float  # of the loss

    def __init__(self, settings: Settings, student: Module, teacher: nn.Module) -> None:
        super().__init__(settings, student.network, student.scale)
        self.teacher = [teacher.requires_grad_(False)]  # a list: no part of this module's weights

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        with torch.no_grad():
            self.wanted = self.teacher[0].to(self.device)(**batch["inputs"])[0]
        return super().training_step(batch, batch_idx)

    def compute_loss(self, raw: Tensor, label: Tensor) -> Tensor:
        loss = super().compute_loss(raw, label)
        return (1 - self.share) * loss + self.share * self._distance(raw) if self.training else loss

    def _distance(self, raw: Tensor) -> Tensor:
        if self.settings.data.kind == "regression":
            unit = torch.tensor([self.scale, 1.0], device=raw.device)
            return functional.mse_loss(raw / unit, self.wanted / unit)
        student, wanted = (
            (outputs / self.temperature).log_softmax(dim=1) for outputs in (raw, self.wanted)
        )
        distance = functional.kl_div(student, wanted, log_target=True, reduction="batchmean")
        return distance * self.temperature**2


def smaller(settings: Settings, student: str) -> Settings:
    """Settings of the student: half the width has about a quarter of the weights."""
    model = settings.model | ({"weights": None} if "weights" in settings.model else {})
    if student:
        key = student.partition("=")[0].removeprefix("model.")
        model[key] = load([student]).model.get(key)
    elif "width" in model:
        model["width"] //= 2
    else:
        raise ValueError(
            "this model has no `width` to shrink: name a smaller one, such as student=model.depth=1"
        )
    return settings.model_copy(update={"model": model})

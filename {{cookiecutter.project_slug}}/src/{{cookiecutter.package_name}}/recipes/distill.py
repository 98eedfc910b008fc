"""Distillation: a student of a quarter of the size learns from the trained network (Hinton 2015,
arXiv:1503.02531).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.datamodule import label_scale
from ..modeling.module import Module, build_network
from ..params import load
from ..settings import Settings
from ..training.fit import build_module
from .recipe import Variants, latency, raw, size, trained

SHARE = 0.25  # of the teacher's parameters


def recipe(
    variants: Variants, student: str = "", temperature: float = 4.0, share: float = 0.5
) -> None:
    """Teacher, student alone and student taught; `share` of the loss is the teacher's, the rest the
    labels'.

    `student` is an override such as model.width=8; without it, the width whose size is nearest to a
    quarter.
    """
    small, teacher = smaller(variants.settings, student), trained(variants.settings)

    def taught(settings: Settings) -> Module:
        network = build_module(settings).network
        return Taught(settings, network, label_scale(settings), teacher, temperature, share)

    networks: dict[str, tuple[nn.Module, dict[str, Any]]] = {"teacher": (teacher, {})}
    networks["student alone"] = variants.fit("student alone", small)
    networks["student taught"] = variants.fit("student taught", small, taught)
    for name, (network, costs) in networks.items():
        times = latency(raw(network), variants.examples["test"].inputs)
        variants.add(name, raw(network), {**size(network), **times, **costs})


class Taught(Module):
    """Learns the labels and a frozen teacher's answers.

    Of classes, the probabilities at a temperature, with its square as weight; of a regression,
    value and log deviation.
    """

    def __init__(
        self,
        settings: Settings,
        network: nn.Module,
        scale: float,
        teacher: nn.Module,
        temperature: float,
        share: float,
    ) -> None:
        super().__init__(settings, network, scale)
        self.teacher = [
            teacher.eval().requires_grad_(False)
        ]  # in a list: no part of this module's weights
        self.temperature, self.share = temperature, share

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
        own, wanted = ((r / self.temperature).log_softmax(dim=1) for r in (raw, self.wanted))
        return (
            functional.kl_div(own, wanted, log_target=True, reduction="batchmean")
            * self.temperature**2
        )


def smaller(settings: Settings, student: str) -> Settings:
    """Settings of the student. Raises ValueError where neither an override nor a width says what to
    make smaller.
    """
    model = {**settings.model, **({"weights": None} if "weights" in settings.model else {})}
    if student:
        key = student.partition("=")[0].removeprefix("model.")
        value = load([student]).model.get(key)
        return settings.model_copy(update={"model": {**model, key: value}})
    if "width" not in model:
        raise ValueError(
            "this model has no `width` to shrink: name a smaller one, such as student=model.depth=1"
        )

    def of_width(width: int) -> Settings:
        return settings.model_copy(update={"model": {**model, "width": width}})

    def parameters(width: int) -> int:
        with torch.device("meta"):  # shapes without memory
            return sum(p.numel() for p in build_network(of_width(width)).parameters())

    wanted = SHARE * parameters(model["width"])
    return of_width(
        min(range(1, model["width"] + 1), key=lambda width: abs(parameters(width) - wanted))
    )

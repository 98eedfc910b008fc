"""What follows from the kind of a task. Each kind is one module with the functions of `Kind` below.

Raw outputs are logits [n, k] for classes (k = 2 for binary), and the value [n, 1], or value and log
standard deviation [n, 2], in the label's own unit for values. The server runs these modules too:
they import torch only where they train.
"""

import importlib
from typing import TYPE_CHECKING, Any, Protocol, cast

from numpy.typing import NDArray

from ... import settings
from ...types import Answers, Floats, Rule

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchmetrics import MetricCollection

MODULES: dict[settings.Kind, str] = {
    "multiclass": "classes",
    "binary": "classes",
    "regression": "values",
}


class Kind(Protocol):
    """The functions of a kind's module, in its own words there."""

    def decide(self, raw: Floats, rule: Rule) -> Answers: ...
    def row_losses(self, answers: Any, label: NDArray[Any], scale: float) -> Floats: ...
    def constant(self, label: NDArray[Any]) -> Floats: ...
    # data
    def encode_labels(self, labels: NDArray[Any], names: list[str]) -> NDArray[Any]: ...
    def label_scale(self, labels: NDArray[Any]) -> float: ...
    # training
    def default_loss(self, **options: Any) -> "nn.Module": ...
    def target(self, label: "Tensor") -> "Tensor": ...
    def scaled(self, raw: "Tensor", label: "Tensor", scale: float) -> "tuple[Tensor, Tensor]": ...
    def errors(self, raw: "Tensor", label: "Tensor", scale: float) -> "Tensor": ...
    def prediction(self, raw: "Tensor") -> "Tensor": ...
    def training_metrics(self, num_classes: int) -> "MetricCollection": ...
    def constant_loss(self, loss: "nn.Module", num_labels: int) -> float: ...
    def training_error(self, loss: float, score: float) -> float: ...
    def table(
        self, answers: Any, label: NDArray[Any], names: list[str]
    ) -> dict[str, NDArray[Any]]: ...
    # evaluation
    def metrics(self, answers: Any, label: NDArray[Any]) -> dict[str, float]: ...


def of(kind: settings.Kind) -> Kind:
    """The module of a kind. Raises ValueError where this project was generated without it."""
    try:
        return cast(Kind, importlib.import_module(f".{MODULES[kind]}", __package__))
    except ModuleNotFoundError:
        raise ValueError(
            f"this project has no kind {kind}: it was generated for another task"
        ) from None

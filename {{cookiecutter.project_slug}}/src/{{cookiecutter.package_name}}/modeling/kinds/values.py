"""Answers on a scale (regression): labels [n] are numbers in a unit of their own."""

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...types import Estimates, Floats, Rule

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchmetrics import MetricCollection


def decide(raw: Floats, rule: Rule) -> Estimates:
    """Answers for values [n, 1] or values and log deviations [n, 2].

    The interval is value ± quantile · deviation (locally weighted split conformal prediction: Lei
    et al. 2018, doi:10.1080/01621459.2017.1307116).
    """
    value = raw[:, 0].astype(np.float64)
    spread = np.exp(raw[:, 1].astype(np.float64)) if raw.shape[1] > 1 else np.ones(len(raw))
    deviation = rule.temperature * spread
    half = (rule.conformal_quantile * deviation)[:, None]
    intervals = value[:, None] + half * np.array([-1.0, 1.0])
    shifted = value + rule.shift * deviation
    return Estimates(shifted, deviation, -deviation, rule.unsure(-deviation), intervals)


def row_losses(answers: Estimates, label: NDArray[Any], scale: float) -> Floats:
    """Squared errors [n] over the squared scale. With the labels' standard deviation, 1 minus the
    mean is R².
    """
    return np.asarray(((answers.value - label) / scale) ** 2)


def constant(label: NDArray[Any]) -> Floats:
    """Raw output [1] of always answering the mean."""
    return np.array([label.mean()])


# Training


def default_loss(**options: Any) -> "nn.Module":
    from ..losses import HuberWithDeviation

    return HuberWithDeviation()


def target(label: "Tensor") -> "Tensor":
    """Labels as the loss takes them."""
    return label.float()


def scaled(raw: "Tensor", label: "Tensor", scale: float) -> "tuple[Tensor, Tensor]":
    """Raw outputs and labels in `scale`, the unit in which losses are taken."""
    import torch

    return torch.stack([raw[:, 0] / scale, raw[:, 1] - math.log(scale)], dim=1), label / scale


def errors(raw: "Tensor", label: "Tensor", scale: float) -> "Tensor":
    """[n]: squared, in `scale`."""
    return ((raw[:, 0] - label) / scale) ** 2


def prediction(raw: "Tensor") -> "Tensor":
    """What the metrics of training take: values [n]."""
    return raw[:, 0]


def training_metrics(num_classes: int) -> "MetricCollection":
    """The metrics that training follows; they take `prediction` and the label [n]."""
    from torchmetrics import MetricCollection
    from torchmetrics import regression as r

    return MetricCollection(
        {"r2": r.R2Score(), "rmse": r.MeanSquaredError(squared=False), "mae": r.MeanAbsoluteError()}
    )


# Evaluation


def metrics(answers: Estimates, label: NDArray[Any]) -> dict[str, float]:
    """Every metric of the answered values (M3)."""
    import torch
    from torchmetrics import MetricCollection
    from torchmetrics import regression as r

    value, truth = torch.from_numpy(answers.value).double(), torch.from_numpy(label).double()
    parts: dict[str, Any] = {
        "mse": r.MeanSquaredError(),
        "rmse": r.MeanSquaredError(squared=False),
        "mae": r.MeanAbsoluteError(),
        "r2": r.R2Score(),
        "mape": r.MeanAbsolutePercentageError(),
    }
    if min(answers.value.min(), label.min()) > -1:  # else its logarithm does not exist
        parts["msle"] = r.MeanSquaredLogError()
    results = {
        name: float(result)
        for name, result in MetricCollection(parts, compute_groups=False)(value, truth).items()
    }
    return {**results, "huber": float(torch.nn.functional.huber_loss(value, truth))}


# Packaging


def difference(answers: Estimates, others: Estimates, scale: float) -> float:
    """The largest of a value, in `scale`."""
    return float(np.abs(answers.value - others.value).max() / scale)


def reference(answers: Estimates) -> dict[str, Floats]:
    """What a bundle keeps of the answers on held-out rows, for the monitor."""
    return {name: getattr(answers, name).astype(np.float32) for name in ("value", "deviation")}


# Serving

SURENESS = "deviation"  # the field of answers that says how sure each one is


def names(answers: Estimates, labels: list[str]) -> list[float]:
    """What was answered [n]."""
    return [float(value) for value in answers.value]


def items(answers: Estimates, labels: list[str]) -> list[dict[str, Any]]:
    """Answers as JSON."""
    fields = ("value", "interval", "deviation", "abstain")
    arrays = (answers.value, answers.intervals, answers.deviation, answers.abstain)
    rows = zip(*(array.tolist() for array in arrays), strict=True)
    return [dict(zip(fields, row, strict=True)) for row in rows]


def stored(answers: Estimates) -> list[dict[str, Any]]:
    """What the store keeps of each answer beside its value and confidence."""
    rows = zip(answers.intervals.tolist(), answers.deviation.tolist(), strict=True)
    return [{"interval": interval, "deviation": deviation} for interval, deviation in rows]


def columns(answers: Estimates, labels: list[str]) -> dict[str, Any]:
    """What batch scoring adds to a table, each [n]."""
    low, high = answers.intervals.T
    return {"predicted_value": answers.value, "interval_low": low, "interval_high": high}


def tensors(answers: Estimates) -> dict[str, Floats]:
    """Answers as arrays of numbers, for /v2."""
    return {"value": answers.value, "interval": answers.intervals}


def groups(answers: Estimates, labels: list[str], reference: Any) -> list[str]:
    """A name [n] for each answer, of which there are few, for counters: the tenth of the
    reference's values in which it lies.
    """
    tenths = np.quantile(reference["value"], np.arange(1, 10) / 10)
    return [f"tenth {i + 1}" for i in np.searchsorted(tenths, answers.value)]


def check_label(label: Any, labels: list[str]) -> float:
    """The label of a feedback. Raises ValueError that says the rule."""
    is_number = isinstance(label, int | float) and not isinstance(label, bool)
    if is_number and abs(label) <= sys.float_info.max:
        return float(label)
    raise ValueError("must be a finite number")


def is_right(item: dict[str, Any], label: Any) -> bool:
    """Whether the interval of an answer, as JSON, holds the true value."""
    low, high = item["interval"]
    return bool(low <= label <= high)


# Monitoring


def reference_answers(reference: Any, rule: Rule) -> dict[str, NDArray[Any]]:
    """Answers of a bundle's reference as the monitor compares them."""
    return {name: reference[name].astype(np.float64) for name in ("value", "deviation")}


def stored_answers(rows: Any, labels: list[str]) -> dict[str, NDArray[Any]]:
    """The same of stored predictions."""
    deviation = [row["signals"]["deviation"] for row in rows]
    return {"value": np.array([row["label"] for row in rows]), "deviation": np.array(deviation)}


def service_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean deviation of stored predictions, and the mean absolute error where labels came."""
    results = {"mean_deviation": sum(row["signals"]["deviation"] for row in rows) / len(rows)}
    errors = [abs(row["feedback"] - row["label"]) for row in rows if row["feedback"] is not None]
    return results | ({"mean_absolute_error": sum(errors) / len(errors)} if errors else {})

"""Answers on a scale (regression): labels [n] are numbers in a unit of their own."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...settings import Data
from ...types import Estimates, Floats, Rule

if TYPE_CHECKING:
    import pandas as pd  # which the server does not have
    import pandera.pandas as pa
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


# Data


def label_column(data: Data) -> "pa.Column":
    """The rule for labels: a finite number within the declared range; empty is counted apart."""
    import pandera.pandas as pa

    rules = [pa.Check(lambda s: np.isfinite(s), name="finite", error="a finite number")]
    if data.checks.label_range:
        rules.append(pa.Check.in_range(*data.checks.label_range))
    return pa.Column(float, rules, nullable=True)


def finite(label: "pd.Series") -> "pd.Series":
    """The labels that are numbers."""
    import pandas as pd

    values = pd.to_numeric(label, errors="coerce")
    return values[np.isfinite(values)]


def label_summary(label: "pd.Series", data: Data) -> dict[str, float]:
    """Quantiles of the values."""
    quantiles = finite(label).quantile([0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    return {f"{100 * mark:g} %": float(value) for mark, value in quantiles.items()}


def label_spread(label: "pd.Series", data: Data) -> tuple[str, float, float, str]:
    """A check that there is something to tell apart: its name, number, lower limit and detail."""
    return "standard deviation of the labels", float(np.std(finite(label))), 1e-12, ""


def label_deviation(part: "pd.Series", whole: "pd.Series") -> float:
    """Largest difference of the distribution function of a part from that of the whole."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(part, whole, method="asymp").statistic) if len(part) else 1.0


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

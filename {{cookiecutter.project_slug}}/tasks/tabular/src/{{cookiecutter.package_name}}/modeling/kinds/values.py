"""Answers on a scale (regression): labels [n] are numbers in a unit of their own."""

import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...settings import Data
from ...types import Estimates, Flags, Floats, Inputs, Labels, Rule

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


def row_losses(answers: Estimates, label: Labels, scale: float) -> Floats:
    """Squared errors [n] over the squared scale. With the labels' standard deviation, 1 minus the
    mean is R².
    """
    return np.asarray(((answers.value - label) / scale) ** 2)


def constant(label: Labels) -> Floats:
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


def encode_labels(labels: Labels, names: list[str]) -> Labels:
    """The values [n]."""
    return labels.astype(np.float32)


def label_scale(labels: Labels) -> float:
    """The unit of losses: the labels' standard deviation."""
    return float(labels.std(dtype=np.float64))


# Training


def raw_sizes(num_labels: int) -> list[int]:
    """The k that raw outputs [n, k] may have: a value, or a value and its log deviation."""
    return [1, 2]


LOSS_TARGET = f"{__name__.partition('.')[0]}.modeling.losses_of_values.HuberWithDeviation"


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


def constant_loss(loss: "nn.Module", num_labels: int) -> float:
    """Loss of always answering the mean: losses are in standard deviations."""
    return 1.0


def training_error(loss: float, score: float) -> float:
    """What tells of underfitting: the squared error, in the labels' variance."""
    return 1 - score


def table(answers: Estimates, label: Labels, names: list[str]) -> Inputs:
    """Columns [n]: `truth`, what was `said`, the deviation as `sure`; nothing is `wrong`."""
    columns = {"truth": label, "said": answers.value, "sure": answers.deviation}
    return {**columns, "wrong": np.zeros(len(label), dtype=bool)}


# Evaluation

ZERO_ONE = False  # a loss is 0 or 1
PROMISES = "deviations"
SETS = "intervals"


def metrics(answers: Estimates, label: Labels) -> dict[str, float]:
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


def reference_answers(reference: Any, rule: Rule) -> Inputs:
    """Answers of a bundle's reference as the monitor compares them."""
    return {name: reference[name].astype(np.float64) for name in ("value", "deviation")}


def stored_answers(rows: Any, labels: list[str]) -> Inputs:
    """The same of stored predictions."""
    deviation = [row["signals"]["deviation"] for row in rows]
    return {"value": np.array([row["label"] for row in rows]), "deviation": np.array(deviation)}


def service_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Mean deviation of stored predictions, and the mean absolute error where labels came."""
    results = {"mean_deviation": sum(row["signals"]["deviation"] for row in rows) / len(rows)}
    errors = [abs(row["feedback"] - row["label"]) for row in rows if row["feedback"] is not None]
    return results | ({"mean_absolute_error": sum(errors) / len(errors)} if errors else {})


def confusion(answers: Estimates, label: Labels) -> Labels | None:
    """There are no classes to confuse."""
    return None


def purpose(name: str, labels: list[str]) -> str:
    """What a model of data of this name does, in one sentence."""
    return f"The model predicts a number for each row of {name}, with how sure it is."


def default_costs(num_classes: int) -> dict[Any, float]:
    """The absolute error."""
    return {"under": 1.0, "over": 1.0}


def set_scores(raw: Floats, label: Labels, rule: Rule) -> Floats:
    """What `decide` compares with the conformal quantile [n]: the standardised distance."""
    answers = decide(raw, rule.without_costs())
    return np.asarray(np.abs(label - answers.value) / answers.deviation)


def coverage(answers: Estimates, label: Labels) -> tuple[Any, Any]:
    """Whether each interval holds the truth [n], and how wide it is [n]."""
    low, high = answers.intervals.T
    return (low <= label) & (label <= high), high - low


def differs(answers: Estimates, others: Estimates, tolerance: float) -> Flags:
    """Rows [n] whose value moved by more than the tolerance."""
    return np.asarray(np.abs(answers.value - others.value) > tolerance)


def levels(answers: Estimates, column: Any) -> Floats:
    """What a direction compares: values [n]."""
    return answers.value


def outputs(answers: Estimates) -> Floats:
    """Answers as numbers [n, 1]."""
    return answers.value[:, None]


def answered_class(answers: Estimates) -> Labels | None:
    """There is none."""
    return None


def hardness(answers: Estimates, label: Labels) -> Floats:
    """How wrong each answer [n] is: the absolute error."""
    return np.asarray(np.abs(answers.value - label))


def text(label: Any, labels: list[str]) -> str:
    """One label for reading."""
    return f"{label:.4g}"


def answered(answers: Estimates, labels: list[str]) -> list[str]:
    """Answers [n] for reading."""
    return [f"{value:.4g}" for value in answers.value]


def plots(answers: Estimates, label: Labels, labels: list[str]) -> dict[str, Any]:
    """Drawers into a figure by name, of answers against the truth [n]."""

    def predicted(figure: Any) -> None:
        from sklearn.metrics import PredictionErrorDisplay as Display

        figure.set_size_inches(5, 5)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        style = {"s": 10}
        for axes, kind in ((above, "actual_vs_predicted"), (below, "residual_vs_predicted")):
            Display.from_predictions(label, answers.value, kind=kind, ax=axes, scatter_kwargs=style)
        above.set(xlabel="", ylabel="true", aspect="auto")
        below.set(xlabel="predicted", ylabel="true less predicted")

    def distribution(figure: Any) -> None:
        axes = figure.subplots()
        axes.hist(label - answers.value, bins=30)
        axes.set(xlabel="true less predicted", ylabel="rows")

    return {"predicted": predicted, "distribution": distribution}


def attack_loss(raw: "Tensor", label: "Tensor") -> "Tensor":
    """What an attack makes larger."""
    return ((raw[:, 0] - label) ** 2).sum()


def at_other_rules(answers: Estimates, rule: Rule) -> tuple[str, float, Floats, list[Estimates]]:
    """Answers at other shifts: name of what moves, its stored place, its places, answers."""
    places = np.linspace(-2, 2, 41)
    plain = answers.value - rule.shift * answers.deviation
    moved = [replace(answers, value=plain + s * answers.deviation) for s in places]
    return "shift, in predicted standard deviations", rule.shift, places, moved

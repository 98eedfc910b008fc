"""Metrics by task kind, from torchmetrics (M3)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics import classification as c
from torchmetrics import regression as r

from ..settings import Kind
from .predictions import Answers, Decisions


def metrics(kind: Kind, num_classes: int) -> MetricCollection:
    """The scalar metrics of a kind that training follows; they take `prediction` and the label [n]."""
    parts: dict[str, Metric | MetricCollection]
    if kind == "regression":
        parts = {"r2": r.R2Score(), "rmse": r.MeanSquaredError(squared=False), "mae": r.MeanAbsoluteError()}
    elif kind == "binary":
        parts = {"accuracy": c.BinaryAccuracy(), "f1": c.BinaryF1Score(), "auroc": c.BinaryAUROC()}
    else:
        parts = {"accuracy": c.MulticlassAccuracy(num_classes, average="micro")}
        for average in ("micro", "macro"):
            parts[f"precision_{average}"] = c.MulticlassPrecision(num_classes, average=average)
            parts[f"recall_{average}"] = c.MulticlassRecall(num_classes, average=average)
            parts[f"f1_{average}"] = c.MulticlassF1Score(num_classes, average=average)
        parts["cohen_kappa"] = c.MulticlassCohenKappa(num_classes)
        parts["jaccard"] = c.MulticlassJaccardIndex(num_classes)
    return MetricCollection(parts)


def prediction(kind: Kind, raw: Tensor) -> Tensor:
    """What the metrics take: value [n], probability of the positive class [n], or the likeliest class [n]."""
    if kind == "regression":
        return raw[:, 0]
    return raw.softmax(dim=1)[:, 1] if kind == "binary" else raw.argmax(dim=1)


def evaluate(kind: Kind, answers: Answers, label: NDArray[Any]) -> dict[str, float]:
    """Every metric of the kind for answers on n rows and their label [n]."""
    if isinstance(answers, Decisions):
        return _binary(answers, label) if kind == "binary" else _multiclass(answers, label)
    value, truth = torch.from_numpy(answers.value).double(), torch.from_numpy(label).double()
    parts: dict[str, Metric] = {
        "mse": r.MeanSquaredError(),
        "rmse": r.MeanSquaredError(squared=False),
        "mae": r.MeanAbsoluteError(),
        "r2": r.R2Score(),
        "mape": r.MeanAbsolutePercentageError(),
    }
    found = {name: float(metric(value, truth)) for name, metric in parts.items()}
    if min(answers.value.min(), label.min()) > -1:  # else its logarithm does not exist
        found["msle"] = float(r.MeanSquaredLogError()(value, truth))
    return {**found, "huber": float(torch.nn.functional.huber_loss(value, truth))}


def _multiclass(answers: Decisions, label: NDArray[Any]) -> dict[str, float]:
    """Of the answered classes, which costs may move away from the most probable ones."""
    given, truth = torch.from_numpy(answers.label), torch.from_numpy(label)
    found = {k: float(v) for k, v in metrics("multiclass", answers.probabilities.shape[1])(given, truth).items()}
    return {**found, "log_loss": _log_loss(answers, label)}


def _binary(answers: Decisions, label: NDArray[Any]) -> dict[str, float]:
    """Rates at the stored threshold; AUROC, AUPRC and log loss of the probabilities."""
    given, truth = torch.from_numpy(answers.label), torch.from_numpy(label)
    positive = torch.from_numpy(answers.probabilities[:, 1]).double()
    found = {
        "accuracy": c.BinaryAccuracy()(given, truth),
        "precision": c.BinaryPrecision()(given, truth),
        "recall": c.BinaryRecall()(given, truth),
        "f1": c.BinaryF1Score()(given, truth),
        "auroc": c.BinaryAUROC()(positive, truth),
        "auprc": c.BinaryAveragePrecision()(positive, truth),
        "tpr": c.BinaryRecall()(given, truth),
        "tnr": c.BinarySpecificity()(given, truth),
    }
    values = {name: float(value) for name, value in found.items()}
    return {**values, "fpr": 1 - values["tnr"], "fnr": 1 - values["tpr"], "log_loss": _log_loss(answers, label)}


def _log_loss(answers: Decisions, label: NDArray[Any]) -> float:
    chosen = answers.probabilities[np.arange(len(label)), label]
    return float(-np.log(np.clip(chosen, 1e-15, None)).mean())


def confusion(answers: Decisions, label: NDArray[Any]) -> NDArray[np.int64]:
    """Counts [k, k]: true class by answered class."""
    k = answers.probabilities.shape[1]
    counts = c.MulticlassConfusionMatrix(k)(torch.from_numpy(answers.label), torch.from_numpy(label))
    return np.asarray(counts.numpy(), dtype=np.int64)

"""Metrics by task kind, from torchmetrics (M3)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric, MetricCollection
from torchmetrics import classification as c

from ..settings import Kind


def metrics(kind: Kind, num_classes: int) -> MetricCollection:
    """The scalar metrics of a kind; they take probabilities [n, k] and label indices [n]."""
    assert kind == "multiclass"
    parts: dict[str, Metric | MetricCollection] = {"accuracy": c.MulticlassAccuracy(num_classes, average="micro")}
    for average in ("micro", "macro"):
        parts[f"precision_{average}"] = c.MulticlassPrecision(num_classes, average=average)
        parts[f"recall_{average}"] = c.MulticlassRecall(num_classes, average=average)
        parts[f"f1_{average}"] = c.MulticlassF1Score(num_classes, average=average)
    parts["cohen_kappa"] = c.MulticlassCohenKappa(num_classes)
    parts["jaccard"] = c.MulticlassJaccardIndex(num_classes)
    return MetricCollection(parts, compute_groups=False)


def evaluate(kind: Kind, probabilities: NDArray[Any], label: NDArray[Any]) -> dict[str, float]:
    """Every metric of the kind, and the log loss, for probabilities [n, k] and label indices [n]."""
    p, y = torch.from_numpy(probabilities).double(), torch.from_numpy(label)
    values = {name: float(v) for name, v in metrics(kind, p.shape[1])(p, y).items()}
    chosen = p[torch.arange(len(y)), y].clamp_min(1e-15)
    return {**values, "log_loss": float(-chosen.log().mean())}


def confusion(probabilities: NDArray[Any], label: NDArray[Any]) -> NDArray[np.int64]:
    """Counts [k, k]: true class by predicted class."""
    k = probabilities.shape[1]
    counts = c.MulticlassConfusionMatrix(k)(torch.from_numpy(probabilities), torch.from_numpy(label))
    return np.asarray(counts.numpy(), dtype=np.int64)

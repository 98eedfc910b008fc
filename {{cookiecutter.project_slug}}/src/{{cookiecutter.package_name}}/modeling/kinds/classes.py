"""Answers among classes, two (binary) or more (multiclass): labels [n] are indices of
`data.labels`.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...types import Decisions, Floats, Rule

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torchmetrics import MetricCollection


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities [n, k] of logits [n, k] divided by the temperature (Guo et al. 2017,
    arXiv:1706.04599).
    """
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def decide(raw: Floats, rule: Rule) -> Decisions:
    """Answers for logits [n, k]: the class of least expected cost (Elkan 2001), or the one that the
    threshold gives.

    The conformal set holds every class whose probability is at least 1 - quantile (split conformal
    prediction, LAC: Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341), and always the
    answered class.
    """
    probabilities = softmax(raw, rule.temperature)
    if rule.threshold is not None:
        label = (probabilities[:, 1] >= rule.threshold).astype(np.int64)
    elif rule.costs is not None:
        label = (probabilities @ np.array(rule.costs)).argmin(axis=1)
    else:
        label = probabilities.argmax(axis=1)
    rows = np.arange(len(label))
    confidence = probabilities[rows, label]
    sets = probabilities >= 1 - rule.conformal_quantile
    sets[rows, label] = True
    return Decisions(probabilities, label, confidence, rule.unsure(confidence), sets)


def row_losses(answers: Decisions, label: NDArray[Any], scale: float) -> Floats:
    """What each answer costs [n]: 1 for a wrong class. 1 minus the mean is the accuracy."""
    return np.asarray(answers.label != label, dtype=np.float64)


def constant(label: NDArray[Any]) -> Floats:
    """Raw output [k] of always answering the shares of the classes."""
    return np.asarray(np.log(np.bincount(label) / len(label) + 1e-9))


# Data


def encode_labels(labels: NDArray[Any], names: list[str]) -> NDArray[Any]:
    """Index [n] of each label among the names."""
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[label] for label in labels], dtype=np.int64)


def label_scale(labels: NDArray[Any]) -> float:
    """The unit of losses."""
    return 1.0


# Training


def default_loss(**options: Any) -> "nn.Module":
    from torch import nn

    return nn.CrossEntropyLoss(**options)


def target(label: "Tensor") -> "Tensor":
    """Labels as the loss takes them."""
    return label.long()


def scaled(raw: "Tensor", label: "Tensor", scale: float) -> "tuple[Tensor, Tensor]":
    """Raw outputs and labels as the loss takes them."""
    return raw, label


def errors(raw: "Tensor", label: "Tensor", scale: float) -> "Tensor":
    """[n]: whether the likeliest class is another one."""
    return raw.argmax(1) != label


def prediction(raw: "Tensor") -> "Tensor":
    """What the metrics of training take: probability of the positive class [n], or the likeliest
    class [n].
    """
    return raw.softmax(dim=1)[:, 1] if raw.shape[1] == 2 else raw.argmax(dim=1)


def training_metrics(num_classes: int) -> "MetricCollection":
    """The metrics that training follows; they take `prediction` and the label [n]."""
    from torchmetrics import MetricCollection
    from torchmetrics import classification as c

    if num_classes == 2:
        return MetricCollection(
            {"accuracy": c.BinaryAccuracy(), "f1": c.BinaryF1Score(), "auroc": c.BinaryAUROC()}
        )
    parts: dict[str, Any] = {"accuracy": c.MulticlassAccuracy(num_classes, average="micro")}
    for average in ("micro", "macro"):
        parts[f"precision_{average}"] = c.MulticlassPrecision(num_classes, average=average)
        parts[f"recall_{average}"] = c.MulticlassRecall(num_classes, average=average)
        parts[f"f1_{average}"] = c.MulticlassF1Score(num_classes, average=average)
    parts["cohen_kappa"] = c.MulticlassCohenKappa(num_classes)
    parts["jaccard"] = c.MulticlassJaccardIndex(num_classes)
    return MetricCollection(parts)


def constant_loss(loss: "nn.Module", num_labels: int) -> float:
    """Loss of an answer that knows nothing: all classes are alike."""
    import torch

    device = next(iter(loss.buffers()), torch.zeros(0)).device  # of class weights
    logits, label = torch.zeros(num_labels, num_labels), torch.arange(num_labels)
    return float(loss(logits.to(device), label.to(device)))


def training_error(loss: float, score: float) -> float:
    """What tells of underfitting: the loss, which falls before the share of wrong answers does."""
    return loss


def table(answers: Decisions, label: NDArray[Any], names: list[str]) -> dict[str, NDArray[Any]]:
    """Columns [n]: `truth`, what was `said`, how `sure`, and whether it is `wrong`."""
    text, wrong = np.array(names), answers.label != label
    columns = {"truth": text[label], "said": text[answers.label], "sure": answers.confidence}
    return {**columns, "wrong": wrong}


# Evaluation


def metrics(answers: Decisions, label: NDArray[Any]) -> dict[str, float]:
    """Every metric of the answered classes, which costs may move away from the most probable ones
    (M3).
    """
    chosen = answers.probabilities[np.arange(len(label)), label]
    log_loss = float(-np.log(np.clip(chosen, 1e-15, None)).mean())
    if answers.probabilities.shape[1] == 2:
        return {**_binary_metrics(answers, label), "log_loss": log_loss}
    import torch

    given, truth = torch.from_numpy(answers.label), torch.from_numpy(label)
    results = training_metrics(answers.probabilities.shape[1])(given, truth)
    return {**{name: float(value) for name, value in results.items()}, "log_loss": log_loss}


def _binary_metrics(answers: Decisions, label: NDArray[Any]) -> dict[str, float]:
    """Rates at the stored threshold; AUROC and AUPRC of the probabilities."""
    import torch
    from torchmetrics import MetricCollection
    from torchmetrics import classification as c

    given, truth = torch.from_numpy(answers.label), torch.from_numpy(label)
    positive = torch.from_numpy(answers.probabilities[:, 1]).double()
    rates: dict[str, Any] = {
        "accuracy": c.BinaryAccuracy(),
        "precision": c.BinaryPrecision(),
        "recall": c.BinaryRecall(),
        "f1": c.BinaryF1Score(),
        "tpr": c.BinaryRecall(),
        "tnr": c.BinarySpecificity(),
    }
    ranks: dict[str, Any] = {"auroc": c.BinaryAUROC(), "auprc": c.BinaryAveragePrecision()}
    results = {**MetricCollection(rates)(given, truth), **MetricCollection(ranks)(positive, truth)}
    values = {name: float(value) for name, value in results.items()}
    return {**values, "fpr": 1 - values["tnr"], "fnr": 1 - values["tpr"]}


def confusion(answers: Decisions, label: NDArray[Any]) -> NDArray[np.int64]:
    """Counts [k, k]: true class by answered class."""
    counts = np.zeros([answers.probabilities.shape[1]] * 2, np.int64)
    np.add.at(counts, (label, answers.label), 1)
    return counts

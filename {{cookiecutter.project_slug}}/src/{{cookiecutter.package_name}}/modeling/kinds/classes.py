"""Answers among classes, two (binary) or more (multiclass): labels [n] are indices of
`data.labels`.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...settings import Data
from ...types import MANY, Decisions, Flags, Floats, Inputs, Labels, Rule, names_on_axis

if TYPE_CHECKING:
    import pandas as pd  # which the server does not have
    import pandera.pandas as pa
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


def row_losses(answers: Decisions, label: Labels, scale: float) -> Floats:
    """What each answer costs [n]: 1 for a wrong class. 1 minus the mean is the accuracy."""
    return np.asarray(answers.label != label, dtype=np.float64)


def constant(label: Labels) -> Floats:
    """Raw output [k] of always answering the shares of the classes."""
    return np.asarray(np.log(np.bincount(label) / len(label) + 1e-9))


# Data


def label_column(data: Data) -> "pa.Column":
    """The rule for labels: a known class; empty is counted apart."""
    import pandera.pandas as pa

    declared = {"values": data.labels}
    return pa.Column(str, pa.Check.isin(data.labels), nullable=True, metadata=declared)


def label_summary(label: "pd.Series", data: Data) -> dict[str, float]:
    """Rows of each class."""
    return {name: int((label == name).sum()) for name in data.labels}


def label_spread(label: "pd.Series", data: Data) -> tuple[str, float, float, str]:
    """A check that there is something to tell apart: its name, number, lower limit and detail."""
    counts = label.value_counts().reindex(data.labels, fill_value=0)
    share = counts.min() / max(1, counts.sum())
    return "share of the smallest class", share, data.checks.min_class_share, counts.idxmin()


def label_deviation(part: "pd.Series", whole: "pd.Series") -> float:
    """Largest difference of a class share in a part from that in the whole."""
    shares = [labels.value_counts(normalize=True) for labels in (part, whole)]
    return float(shares[0].sub(shares[1], fill_value=0.0).abs().max())


def encode_labels(labels: Labels, names: list[str]) -> Labels:
    """Index [n] of each label among the names."""
    index = {name: i for i, name in enumerate(names)}
    return np.array([index[label] for label in labels], dtype=np.int64)


def label_scale(labels: Labels) -> float:
    """The unit of losses."""
    return 1.0


# Training


def raw_sizes(num_labels: int) -> list[int]:
    """The k that raw outputs [n, k] may have."""
    return [num_labels]


LOSS_TARGET = "torch.nn.CrossEntropyLoss"


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


def table(answers: Decisions, label: Labels, names: list[str]) -> Inputs:
    """Columns [n]: `truth`, what was `said`, how `sure`, and whether it is `wrong`."""
    text, wrong = np.array(names), answers.label != label
    columns = {"truth": text[label], "said": text[answers.label], "sure": answers.confidence}
    return {**columns, "wrong": wrong}


# Evaluation

ZERO_ONE = True  # a loss is 0 or 1
PROMISES = "probabilities"
SETS = "sets"


def log_loss(probabilities: Floats, label: Labels) -> float:
    """Mean of -log p of the true class, in nats."""
    chosen = probabilities[np.arange(len(label)), label]
    return float(-np.log(np.clip(chosen, 1e-15, None)).mean())


def metrics(answers: Decisions, label: Labels) -> dict[str, float]:
    """Every metric of the answered classes, which costs may move away from the most probable ones
    (M3).
    """
    more = {"log_loss": log_loss(answers.probabilities, label)}
    if answers.probabilities.shape[1] == 2:
        return _binary_metrics(answers, label) | more
    import torch

    given, truth = torch.from_numpy(answers.label), torch.from_numpy(label)
    results = training_metrics(answers.probabilities.shape[1])(given, truth)
    return {name: float(value) for name, value in results.items()} | more


def _binary_metrics(answers: Decisions, label: Labels) -> dict[str, float]:
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


def confusion(answers: Decisions, label: Labels) -> Labels:
    """Counts [k, k]: true class by answered class."""
    from sklearn.metrics import confusion_matrix

    classes = range(answers.probabilities.shape[1])
    return np.asarray(confusion_matrix(label, answers.label, labels=classes))


# Packaging


def difference(answers: Decisions, others: Decisions, scale: float) -> float:
    """The largest of a probability."""
    return float(np.abs(answers.probabilities - others.probabilities).max())


def reference(answers: Decisions) -> dict[str, Floats]:
    """What a bundle keeps of the answers on held-out rows, for the monitor."""
    return {"probabilities": answers.probabilities.astype(np.float32)}


# Serving

SURENESS = "confidence"  # the field of answers that says how sure each one is


def names(answers: Decisions, labels: list[str]) -> list[str]:
    """What was answered [n]."""
    return [labels[i] for i in answers.label]


answered = names  # for reading


def items(answers: Decisions, labels: list[str]) -> list[dict[str, Any]]:
    """Answers as JSON."""
    return [
        {
            "label": labels[answers.label[i]],
            "confidence": float(answers.confidence[i]),
            "probabilities": dict(zip(labels, answers.probabilities[i].tolist(), strict=True)),
            "abstain": bool(answers.abstain[i]),
            "set": [labels[j] for j in np.flatnonzero(answers.sets[i])],
        }
        for i in range(len(answers.label))
    ]


def stored(answers: Decisions) -> list[dict[str, Any]]:
    """What the store keeps of each answer beside its label and confidence."""
    return [{"probabilities": row} for row in answers.probabilities.round(6).tolist()]


def columns(answers: Decisions, labels: list[str]) -> dict[str, Any]:
    """What batch scoring adds to a table, each [n]."""
    return {"predicted_label": names(answers, labels), "confidence": answers.confidence}


def tensors(answers: Decisions) -> dict[str, Floats]:
    """Answers as arrays of numbers, for /v2."""
    return {"probabilities": answers.probabilities}


def groups(answers: Decisions, labels: list[str], reference: Any) -> list[str]:
    """A name [n] for each answer, of which there are few, for counters."""
    return names(answers, labels)


def check_label(label: Any, labels: list[str]) -> str:
    """The label of a feedback. Raises ValueError that says the rule."""
    if isinstance(label, str) and label in labels:
        return label
    raise ValueError(f"must be one of {labels}")


def is_right(item: dict[str, Any], label: Any) -> bool:
    """Whether an answer, as JSON, is the true label."""
    return bool(item["label"] == label)


# Monitoring


def reference_answers(reference: Any, rule: Rule) -> Inputs:
    """Answers of a bundle's reference as the monitor compares them."""
    logits = np.log(np.clip(reference["probabilities"], 1e-12, None))
    # The temperature is in the probabilities already.
    label = decide(logits, rule.model_copy(update={"temperature": 1.0})).label
    return {"probabilities": reference["probabilities"], "label": label}


def stored_answers(rows: Any, labels: list[str]) -> Inputs:
    """The same of stored predictions."""
    probabilities = [row["signals"]["probabilities"] for row in rows]
    label = [labels.index(row["label"]) for row in rows]
    return {"probabilities": np.array(probabilities, np.float64), "label": np.array(label)}


def service_metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Numbers of stored predictions that need no label. The estimated accuracy is the mean
    calibrated confidence (Guillory et al. 2021, arXiv:2107.03315): far too good where requests
    differ much from the training data, so it is shown and never judged.
    """
    confidence = sum(row["confidence"] for row in rows) / len(rows)
    return {"mean_confidence": confidence, "estimated_accuracy": confidence}


def purpose(name: str, labels: list[str]) -> str:
    """What a model of data of this name does, in one sentence."""
    if len(labels) == 2:
        return f"The model decides for each row of {name} between {labels[0]} and {labels[1]}."
    return f"The model sorts each row of {name} into one of {len(labels)} classes."


def default_costs(num_classes: int) -> Floats:
    """1 for every error: costs [k, k] of answering the column when the row is true."""
    return 1 - np.eye(num_classes)


def set_scores(raw: Floats, label: Labels, rule: Rule) -> Floats:
    """What `decide` compares with the conformal quantile [n]: 1 - p of the true class."""
    return np.asarray(1 - softmax(raw, rule.temperature)[np.arange(len(label)), label])


def coverage(answers: Decisions, label: Labels) -> tuple[Any, Any]:
    """Whether each set holds the truth [n], and how large it is [n]."""
    return answers.sets[np.arange(len(label)), label], answers.sets.sum(axis=1)


def differs(answers: Decisions, others: Decisions, tolerance: float) -> Flags:
    """Rows [n] with another class."""
    return np.asarray(answers.label != others.label)


def levels(answers: Decisions, column: Any) -> Floats:
    """What a direction compares: the probability [n] of a class, or of one for each row [n]."""
    return np.asarray(answers.probabilities[np.arange(len(answers.label)), column])


def outputs(answers: Decisions) -> Floats:
    """Answers as numbers [n, k]; of two classes the positive one says it all."""
    p = answers.probabilities
    return p[:, 1:] if p.shape[1] == 2 else p


def answered_class(answers: Decisions) -> Labels | None:
    """The class [n] that an explanation is about."""
    return answers.label


def hardness(answers: Decisions, label: Labels) -> Floats:
    """How wrong each answer [n] is: 1 - probability of the true class."""
    return 1 - levels(answers, label)


def text(label: Any, labels: list[str]) -> str:
    """One label for reading."""
    return str(labels[label])


def plots(answers: Decisions, label: Labels, labels: list[str]) -> dict[str, Any]:
    """Drawers into a figure by name, of answers against the truth [n]."""
    counts = confusion(answers, label)

    def matrix(figure: Any) -> None:
        from sklearn.metrics import ConfusionMatrixDisplay

        many, (names, ticks) = len(labels) > MANY, names_on_axis(labels)
        height = 4.2 if len(labels) > 4 else 3
        figure.set_size_inches(5, 5.5 if ticks["rotation"] else height)
        display = ConfusionMatrixDisplay(counts, display_labels=names)
        style: Any = {"cmap": "Blues", "colorbar": many, "include_values": not many}
        display.plot(ax=figure.subplots(), xticks_rotation=ticks["rotation"], **style)
        display.ax_.tick_params(labelsize=ticks["fontsize"])
        display.ax_.set(xlabel="answered", ylabel="true")

    def distribution(figure: Any) -> None:
        """Rows by confidence, right and wrong ones apart."""
        axes, right = figure.subplots(), answers.label == label
        parts = [answers.confidence[right], answers.confidence[~right]]
        axes.hist(parts, np.linspace(0, 1, 31), stacked=True, label=["right", "wrong"])
        axes.set(xlabel="confidence", ylabel="rows")
        axes.legend()

    return {"confusion": matrix, "distribution": distribution}


def attack_loss(raw: "Tensor", label: "Tensor") -> "Tensor":
    """What an attack makes larger."""
    from torch.nn import functional

    return functional.cross_entropy(raw, label)


def at_other_rules(answers: Decisions, rule: Rule) -> tuple[str, float, Floats, list[Decisions]]:
    """Answers at other thresholds: name of what moves, its stored place, its places, answers."""
    places, p = np.linspace(0, 1, 101), answers.probabilities[:, 1]
    moved = [replace(answers, label=(p >= t).astype(np.int64)) for t in places]
    return "threshold of the probability", rule.threshold or 0.5, places, moved

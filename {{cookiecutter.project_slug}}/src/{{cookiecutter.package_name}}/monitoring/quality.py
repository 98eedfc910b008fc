"""How well the model does: errors where feedback gives labels, confidence where it does not."""

from collections import Counter
from typing import Any

from ..modeling import kinds
from ..serving.store import Model
from .samples import Row

OF_CLASSES = ("mean_confidence", "estimated_accuracy")
OF_VALUES = ("mean_absolute_error", "mean_deviation")


def wilson(errors: int, rows: int, confidence: float) -> tuple[float, float]:
    """Two-sided interval of a rate (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(errors, rows).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def measure(rows: list[Row], model: Model | None, confidence: float) -> dict[str, Any]:
    """Numbers of stored predictions of a model, of one that is not known the counts alone. Shares
    lie in 0..1; None where there is nothing to divide by.

    Errors count over the rows with feedback, abstentions included; of a value it is one where the
    truth lies outside the answered interval.
    """
    labelled = [row for row in rows if row["feedback"] is not None]
    names = ("error_rate", "error_interval", "abstention_rate", *OF_CLASSES, *OF_VALUES)
    numbers: dict[str, Any] = dict.fromkeys(names)
    numbers |= {"rows": len(rows), "labelled": len(labelled)}
    if model is None:
        return numbers
    kind, counts = kinds.of(model["kind"]), Counter(row["label"] for row in rows)
    right = [kind.is_right(row | row["signals"], row["feedback"]) for row in labelled]
    numbers["errors"] = right.count(False)
    numbers["label_shares"] = {n: counts[n] / max(1, len(rows)) for n in model["labels"]}
    if labelled:
        numbers["error_rate"] = numbers["errors"] / len(labelled)
        numbers["error_interval"] = wilson(numbers["errors"], len(labelled), confidence)
    if rows:
        abstained = sum(row["abstain"] for row in rows)
        numbers |= {**kind.service_metrics(rows), "abstention_rate": abstained / len(rows)}
    return numbers


def by_version(
    rows: list[Row], models: dict[str, Model], confidence: float
) -> dict[str, dict[str, Any]]:
    """Numbers and share of requests per model version, in the order in which versions first
    answered; each is judged as the model that it was.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["version"], []).append(row)
    versions = {}
    for version, group in groups.items():
        model = models.get(group[0]["identity"])
        numbers = measure(group, model, confidence)
        task = model["task"] if model else None
        versions[version] = {**numbers, "task": task, "request_share": len(group) / len(rows)}
    return versions

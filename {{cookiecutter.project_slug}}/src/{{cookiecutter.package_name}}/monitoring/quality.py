"""How well the model does: errors where feedback gives labels, confidence where it does not."""

from collections import Counter
from dataclasses import dataclass

from ..modeling import kinds
from ..packaging.bundle import Card
from .samples import Row


@dataclass(frozen=True)
class Quality:
    """Numbers of one group of predictions. Shares lie in 0..1; None where there is nothing to
    divide by.

    Confidence, estimated accuracy and label shares are for classes; absolute error and deviation
    for values, whose errors are truths outside the answered interval.
    """

    rows: int
    labelled: int
    errors: int
    label_shares: dict[str, float]
    error_rate: float | None = None
    error_interval: tuple[float, float] | None = None
    abstention_rate: float | None = None
    mean_confidence: float | None = None
    estimated_accuracy: float | None = None
    mean_absolute_error: float | None = None
    mean_deviation: float | None = None


def wilson(errors: int, rows: int, confidence: float) -> tuple[float, float]:
    """Two-sided interval of a rate (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(errors, rows).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def measure(rows: list[Row], card: Card, confidence: float) -> Quality:
    """Quality of stored predictions of a model. Errors count over the rows with feedback,
    abstentions included.
    """
    kind, counts = kinds.of(card.kind), Counter(row["label"] for row in rows)
    labelled = [row for row in rows if row["feedback"] is not None]
    right = [kind.is_right(row | row["signals"], row["feedback"]) for row in labelled]
    errors, numbers = right.count(False), dict[str, float]()
    if rows:
        abstained = sum(bool(row["abstain"]) for row in rows)
        numbers = {**kind.service_metrics(rows), "abstention_rate": abstained / len(rows)}
    return Quality(
        rows=len(rows),
        labelled=len(labelled),
        errors=errors,
        error_rate=errors / len(labelled) if labelled else None,
        error_interval=wilson(errors, len(labelled), confidence) if labelled else None,
        label_shares={label: counts[label] / max(1, len(rows)) for label in card.labels},
        **numbers,
    )


def by_version(rows: list[Row], card: Card, confidence: float) -> dict[str, Quality]:
    """Quality per model version, in the order in which versions first answered."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["version"], []).append(row)
    return {version: measure(group, card, confidence) for version, group in groups.items()}

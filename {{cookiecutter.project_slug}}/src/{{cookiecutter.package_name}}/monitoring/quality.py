"""How well the model does: errors where feedback gives labels, confidence where it does not, and
signs of abuse.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


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
    error_rate: float | None
    error_interval: tuple[float, float] | None
    abstention_rate: float | None
    mean_confidence: float | None
    estimated_accuracy: float | None
    mean_absolute_error: float | None
    mean_deviation: float | None
    label_shares: dict[str, float]


def wilson(errors: int, rows: int, confidence: float) -> tuple[float, float]:
    """Two-sided interval of a rate (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(errors, rows).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def measure(rows: list[Row], labels: list[str], confidence: float) -> Quality:
    """Quality of stored predictions; `labels` is empty where values are predicted.

    Errors count over the rows with feedback, abstentions included. The estimated accuracy is the
    mean calibrated confidence (Guillory et al. 2021, arXiv:2107.03315, call it average confidence):
    shown, never judged, because it is far too good where requests differ much from the training
    data.
    """
    labelled = [row for row in rows if row["feedback"] is not None]
    errors = sum(_wrong(row) for row in labelled)
    counts = Counter(row["label"] for row in rows)
    confident = _mean(row["confidence"] for row in rows) if labels else None
    values = [] if labels else rows
    return Quality(
        rows=len(rows),
        labelled=len(labelled),
        errors=errors,
        error_rate=errors / len(labelled) if labelled else None,
        error_interval=wilson(errors, len(labelled), confidence) if labelled else None,
        abstention_rate=_mean(bool(row["abstain"]) for row in rows),
        mean_confidence=confident,
        estimated_accuracy=confident,
        mean_absolute_error=None
        if labels
        else _mean(abs(row["feedback"] - row["label"]) for row in labelled),
        mean_deviation=_mean(row["signals"]["deviation"] for row in values),
        label_shares={label: counts[label] / max(1, len(rows)) for label in labels},
    )


def _wrong(row: Row) -> bool:
    """Whether the truth is another class than the answered one, or lies outside the answered
    interval.
    """
    if "interval" in row["signals"]:
        low, high = row["signals"]["interval"]
        return not low <= row["feedback"] <= high
    return bool(row["feedback"] != row["label"])


def by_version(rows: list[Row], labels: list[str], confidence: float) -> dict[str, Quality]:
    """Quality per model version, in the order in which versions first answered."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["version"]].append(row)
    return {version: measure(group, labels, confidence) for version, group in groups.items()}


def duplicate_share(rows: list[Row]) -> float:
    """Share of rows whose instance was already seen among them: a flood of one request goes to 1."""
    keys = [_key(row) for row in rows if row["instance"] is not None]
    return 1 - len(set(keys)) / len(keys) if keys else 0.0


def contradiction_share(rows: list[Row]) -> float:
    """Share of labelled rows whose identical instance got another label too: people disagree, or
    labels are flipped.
    """
    labels: dict[str, set[str | float]] = defaultdict(set)
    labelled = [row for row in rows if row["feedback"] is not None and row["instance"] is not None]
    for row in labelled:
        labels[_key(row)].add(row["feedback"])
    return _mean(len(labels[_key(row)]) > 1 for row in labelled) or 0.0


def _key(row: Row) -> str:
    return json.dumps(row["instance"], sort_keys=True)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None

"""M10: are probabilities frequencies? Expected calibration error, Brier score, temperature scaling."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from ..modeling.predictions import softmax
from ..settings import Calibration
from .verdict import Verdict, outcome

Floats = NDArray[np.floating]


def log_loss(probabilities: Floats, label: NDArray[np.int64]) -> float:
    """Mean of -log p of the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(label)), label], 1e-15, None)).mean())


def fit_temperature(logits: Floats, label: NDArray[np.int64]) -> float:
    """The temperature of least log loss (Guo et al. 2017, arXiv:1706.04599); 1 where scaling would not help.

    The targets are smoothed by 1 / (n + 2) as in Platt 1999: else a model that gets all of a small validation set right
    would be scaled to certainty.
    """
    n, k = logits.shape
    targets = np.full((n, k), 1 / (n + 2) / (k - 1))
    targets[np.arange(n), label] = 1 - 1 / (n + 2)

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.clip(probabilities, 1e-15, None))).sum(axis=1).mean())

    temperature = float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
    return temperature if log_loss(softmax(logits, temperature), label) < log_loss(softmax(logits), label) else 1.0


def bins(probabilities: Floats, label: NDArray[np.int64], count: int) -> dict[str, list[float]]:
    """Reliability diagram: mean confidence, accuracy and share of rows of each equal-width bin that has rows."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    index = np.minimum((confidence * count).astype(int), count - 1)
    used = np.unique(index)
    return {
        "confidence": [float(confidence[index == i].mean()) for i in used],
        "accuracy": [float(correct[index == i].mean()) for i in used],
        "share": [float((index == i).mean()) for i in used],
    }


def ece(diagram: dict[str, list[float]]) -> float:
    """Expected calibration error, the mean gap (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602)."""
    gaps = np.abs(np.array(diagram["confidence"]) - np.array(diagram["accuracy"]))
    return float(gaps @ np.array(diagram["share"]))


def brier(probabilities: Floats, label: NDArray[np.int64]) -> float:
    """Mean squared distance of the probabilities [n, k] from the one-hot truth, 0 to 2 (Brier 1950)."""
    return float(((probabilities - np.eye(probabilities.shape[1])[label]) ** 2).sum(axis=1).mean())


def judge(logits: Floats, label: NDArray[np.int64], temperature: float, settings: Calibration) -> Verdict:
    """ECE on test data after temperature scaling against its limit."""
    before, after = softmax(logits), softmax(logits, temperature)
    diagram = bins(after, label, settings.bins)
    found = ece(diagram)
    details: dict[str, Any] = {
        "diagram": diagram,
        "temperature": temperature,
        "ece_uncalibrated": ece(bins(before, label, settings.bins)),
        "brier": brier(after, label),
        "log_loss": log_loss(after, label),
        "log_loss_uncalibrated": log_loss(before, label),
    }
    why = f"probabilities are off by {found:.2%} on average, at temperature {temperature:.2f}"
    return Verdict(
        "M10", "Calibration", outcome(found <= settings.max_ece), round(found, 4), settings.max_ece, why, details
    )

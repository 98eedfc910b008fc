"""From a model's raw outputs to what a user sees, in numpy: evaluation and the server run this same code."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Decisions:
    """probabilities [n, k]; label [n] index; confidence [n]; abstain [n] bool; conformal sets [n, k] bool."""

    probabilities: Floats
    label: NDArray[np.int64]
    confidence: Floats
    abstain: NDArray[np.bool_]
    sets: NDArray[np.bool_]


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities [n, k] of logits [n, k] divided by the temperature (Guo et al. 2017, arXiv:1706.04599)."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def decide(logits: Floats, temperature: float, abstain_below: float, conformal_quantile: float) -> Decisions:
    """Decisions for logits [n, k].

    The conformal set holds every class whose probability is at least 1 - quantile (split conformal prediction, LAC:
    Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341), and always the predicted class.
    """
    probabilities = softmax(logits, temperature)
    label = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    sets = probabilities >= 1 - conformal_quantile
    sets[np.arange(len(label)), label] = True
    return Decisions(probabilities, label, confidence, confidence < abstain_below, sets)

"""From a model's raw outputs to what a user sees, in numpy: evaluation and the server run this same code.

Raw outputs are logits [n, k] for classes (k = 2 for binary), and the value [n, 1], or value and log standard deviation
[n, 2], in the label's own unit for regression.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..limits import Strict
from ..settings import Kind

Floats = NDArray[np.floating]


class Rule(Strict):
    """How raw outputs become answers: fitted on validation and calibration data, stored with the model.

    `temperature` divides logits, or multiplies the predicted standard deviation. `threshold` is the probability of the
    second class from which it is answered (binary). `costs` [k, k] are those of answering the column when the row is
    true; null where all errors cost the same. `shift` is added to a predicted value, in its standard deviations, where
    being too low costs more than being too high. Below `abstain_below` confidence a person should decide; null: never.
    """

    temperature: float = 1.0
    threshold: float | None = None
    costs: list[list[float]] | None = None
    shift: float = 0.0
    abstain_below: float | None = None
    conformal_quantile: float = 1.0

    def without_costs(self) -> "Rule":
        """The rule that answers what is most probable, by which models are compared."""
        return self.model_copy(update={"threshold": None, "costs": None, "shift": 0.0})


@dataclass(frozen=True)
class Decisions:
    """Answers among classes: probabilities [n, k]; label [n] index; confidence [n]; abstain [n]; sets [n, k]."""

    probabilities: Floats
    label: NDArray[np.int64]
    confidence: Floats
    abstain: NDArray[np.bool_]
    sets: NDArray[np.bool_]


@dataclass(frozen=True)
class Estimates:
    """Answers on a scale, in the label's unit: value [n]; deviation [n], the predicted standard deviation; intervals
    [n, 2]; confidence [n] is minus the deviation, so that more is surer; abstain [n]."""

    value: Floats
    deviation: Floats
    confidence: Floats
    abstain: NDArray[np.bool_]
    intervals: Floats


Answers = Decisions | Estimates


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities [n, k] of logits [n, k] divided by the temperature (Guo et al. 2017, arXiv:1706.04599)."""
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def decide(kind: Kind, raw: Floats, rule: Rule) -> Answers:
    """Answers for raw outputs [n, ...] of a model of that kind."""
    return estimate(raw, rule) if kind == "regression" else classify(raw, rule)


def classify(raw: Floats, rule: Rule) -> Decisions:
    """Answers for logits [n, k]: the class of least expected cost (Elkan 2001), or the one that the threshold gives.

    The conformal set holds every class whose probability is at least 1 - quantile (split conformal prediction, LAC:
    Sadinle et al. 2019, doi:10.1080/01621459.2017.1395341), and always the answered class.
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
    return Decisions(probabilities, label, confidence, _unsure(confidence, rule), sets)


def estimate(raw: Floats, rule: Rule) -> Estimates:
    """Answers for values [n, 1] or values and log deviations [n, 2].

    The interval is value ± quantile · deviation (locally weighted split conformal prediction: Lei et al. 2018,
    doi:10.1080/01621459.2017.1307116).
    """
    value = raw[:, 0].astype(np.float64)
    spread = np.exp(raw[:, 1].astype(np.float64)) if raw.shape[1] > 1 else np.ones(len(raw))
    deviation = rule.temperature * spread
    half = (rule.conformal_quantile * deviation)[:, None]
    intervals = value[:, None] + half * np.array([-1.0, 1.0])
    return Estimates(value + rule.shift * deviation, deviation, -deviation, _unsure(-deviation, rule), intervals)


def _unsure(confidence: Floats, rule: Rule) -> NDArray[np.bool_]:
    return np.zeros(len(confidence), bool) if rule.abstain_below is None else confidence < rule.abstain_below


def row_losses(answers: Answers, label: NDArray[np.generic], scale: float) -> Floats:
    """What each answer costs [n]: 1 for a wrong class; squared error over the squared scale for values.

    With `scale` the standard deviation of the labels, 1 minus the mean is the accuracy, or R².
    """
    if isinstance(answers, Estimates):
        return np.asarray(((answers.value - label) / scale) ** 2)  # type: ignore[operator]
    return np.asarray(answers.label != label, dtype=np.float64)

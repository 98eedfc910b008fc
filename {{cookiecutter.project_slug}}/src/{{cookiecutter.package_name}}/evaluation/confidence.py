"""M11: knowing when not to answer. Risk-coverage, abstention threshold, split-conformal sets."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..modeling.predictions import Decisions
from ..settings import Confidence
from .verdict import Verdict, outcome

Floats = NDArray[np.floating]


def risk_coverage(confidence: Floats, correct: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coverage and error rate [n] when the most confident rows alone are answered.

    Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    wrong = ~correct[np.argsort(-confidence, kind="stable")]
    answered = np.arange(1, len(wrong) + 1)
    return answered / len(wrong), np.cumsum(wrong) / answered


def abstention_threshold(confidence: Floats, correct: NDArray[np.bool_], target_error: float) -> float:
    """The lowest confidence at which the answered rows' error rate is at most the target; 0 answers everything."""
    order = np.argsort(-confidence, kind="stable")
    _, risk = risk_coverage(confidence, correct)
    good = np.flatnonzero(risk <= target_error)
    if len(good) == 0:
        return 1.0
    return 0.0 if good[-1] == len(risk) - 1 else float(confidence[order][good[-1]])


def conformal_quantile(probabilities: Floats, label: NDArray[np.int64], alpha: float) -> float:
    """Quantile of 1 - p(true class) on calibration data, so that sets cover 1 - alpha (Vovk et al. 2005; LAC score)."""
    scores = 1 - probabilities[np.arange(len(label)), label]
    level = np.ceil((len(label) + 1) * (1 - alpha)) / len(label)
    return float(np.quantile(scores, min(1.0, level), method="higher"))


def judge(decisions: Decisions, label: NDArray[np.int64], settings: Confidence) -> Verdict:
    """AURC on test data against its limit; coverage of the sets must not be significantly below its promise."""
    correct = decisions.label == label
    coverage, risk = risk_coverage(decisions.confidence, correct)
    aurc = float(risk.mean())
    covered = int(decisions.sets[np.arange(len(label)), label].sum())
    p_low = float(stats.binomtest(covered, len(label), 1 - settings.alpha, alternative="less").pvalue)
    answered = ~decisions.abstain
    details: dict[str, Any] = {
        "coverage": coverage[:: max(1, len(coverage) // 100)].tolist(),
        "risk": risk[:: max(1, len(risk) // 100)].tolist(),
        "aurc": aurc,
        "set_coverage": covered / len(label),
        "mean_set_size": float(decisions.sets.sum(axis=1).mean()),
        "abstained": float(decisions.abstain.mean()),
        "error_when_answering": float(1 - correct[answered].mean()) if answered.any() else None,
    }
    why = f"sets hold the truth on {covered / len(label):.1%} of rows (promised {1 - settings.alpha:.0%})"
    why += f"; abstains on {details['abstained']:.1%}"
    return Verdict(
        "M11",
        "Confidence",
        outcome(aurc <= settings.max_aurc and p_low >= 0.01),
        round(aurc, 5),
        settings.max_aurc,
        why,
        details,
    )

"""M11: knowing when not to answer. Risk and coverage, and the confidence below which a person
should decide.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..modeling import kinds
from ..settings import Confidence, Kind
from ..types import Floats, Rule
from . import conformal
from .by_kind import of_values
from .chance import ALPHA, in_words, weights
from .verdict import Outcome, Verdict

Split = tuple[Floats, NDArray[Any]]
USEFUL = 0.05  # level of the test that confidences help
FEW = 4  # losses like those of fewer wrong rows cannot show that confidences are useless


def risk_coverage(confidence: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Share of rows answered [n] and their mean loss [n], when only the most confident ones are
    answered.

    Geifman and El-Yaniv 2017, arXiv:1705.08500. Rows of equal confidence share their mean loss:
    they have no order.
    """
    order = np.argsort(-confidence, kind="stable")
    _, group, rows = np.unique(confidence, return_inverse=True, return_counts=True)
    shared = (np.bincount(group, losses) / rows)[group][order]
    answered = np.arange(1, len(losses) + 1)
    return answered / len(losses), np.cumsum(shared) / answered


def aurc(confidence: Floats, losses: Floats) -> dict[str, float]:
    """Area under risk over coverage, its excess over the best order's (Geifman et al. 2019,
    arXiv:1805.08206), and its ratio to the mean loss, which is 1 where confidence and loss [n] are
    unrelated.

    `p` says how rarely unrelated ones give as small an area. Over all orders the area has the mean
    and variance of a linear rank statistic (Hájek and Šidák 1967); a gamma distribution with both
    follows it down to a few wrong rows.
    """
    n, mean, weight = len(losses), float(losses.mean()), weights(confidence)
    if mean == 0:
        return {"aurc": 0.0, "excess": 0.0, "ratio": 0.0, "p": 1.0, "spread": 0.0}
    area, best = (float((w * losses).mean()) for w in (weight, weights(-losses)))
    variance = float(losses.var() * weight.var()) / max(n - 1, 1) / mean**2
    p = float(stats.gamma.cdf(area / mean, 1 / variance, scale=variance)) if variance > 0 else 1.0
    return {
        "aurc": area,
        "excess": area - best,
        "ratio": area / mean,
        "p": p,
        "spread": variance**0.5,
    }


def abstention_threshold(confidence: Floats, losses: Floats, target_error: float) -> float | None:
    """The lowest confidence at which the answered rows' mean loss is at most the target.

    None where all rows may be answered, and 1, which no confidence is above, where none may.
    """
    ordered = np.sort(confidence)[::-1]
    ends = np.append(
        ordered[1:] < ordered[:-1], True
    )  # rows of equal confidence are answered together
    good = np.flatnonzero(ends & (risk_coverage(confidence, losses)[1] <= target_error))
    if len(good) == 0:
        return 1.0
    return None if good[-1] == len(ordered) - 1 else float(ordered[good[-1]])


def fit(
    kind: Kind, rule: Rule, val: Split, calibration: Split, settings: Confidence, scale: float
) -> Rule:
    """The rule with its abstention threshold, from validation, and its quantile, from calibration
    data (raw, label).
    """
    functions, below = kinds.of(kind), None
    if val[0].shape[1] > 1:  # else it is as sure of every row
        answers = functions.decide(val[0], rule)
        losses = functions.row_losses(answers, val[1], scale)
        below = abstention_threshold(answers.confidence, losses, settings.target_error)
    quantile = conformal.quantile(functions.set_scores(*calibration, rule), settings.alpha)
    return rule.model_copy(update={"abstain_below": below, "conformal_quantile": quantile})


def usefulness(area: dict[str, float], max_ratio: float) -> tuple[Outcome, float, str]:
    """The same for probabilities, from their `aurc`."""
    ratio, words = area["ratio"], in_words(area["ratio"])
    if area["aurc"] == 0:
        return "pass", max_ratio, "no answer is wrong"
    if ratio <= max_ratio and area["p"] < USEFUL:
        return "pass", max_ratio, words
    if ratio > max_ratio and area["spread"] ** 2 * FEW <= 1:
        return "fail", max_ratio, words
    reason = "chance explains" if area["p"] >= USEFUL else "few errors say"
    return "cannot tell", max_ratio, f"{words}, which {reason}"


def judge(
    kind: Kind,
    raw: Floats,
    label: NDArray[Any],
    rule: Rule,
    settings: Confidence,
    scale: float,
    num_calibration: int,
) -> Verdict:
    """Whether confidences order the losses on test data, and sets that so many rows calibrated
    cover their promise.
    """
    functions = kinds.of(kind)
    answers: Any = functions.decide(raw, rule)
    losses = functions.row_losses(answers, label, scale)
    area = aurc(answers.confidence, losses)
    sets = conformal.coverage(kind, answers, label, num_calibration, settings.alpha)
    share, risk = risk_coverage(answers.confidence, losses)
    answered, step = ~answers.abstain, max(1, len(share) // 100)
    details: dict[str, Any] = {
        "coverage": share[::step].tolist(),
        "risk": risk[::step].tolist(),
        **area,
        **sets,
        "abstained": float(answers.abstain.mean()),
        "error_when_answering": float(losses[answered].mean()) if answered.any() else None,
    }
    number: float | None = round(area["ratio"], 4)
    limit: float | None
    outcome: Outcome
    if raw.shape[1] == 1:
        outcome, number, limit = "pass", None, None
        why = "confidence is not applicable: the model gives no deviation"
    elif functions.PROMISES == "deviations":
        outcome, limit, why = of_values().keeps_promise(answers.deviation, area["ratio"])
    else:
        outcome, limit, why = usefulness(area, settings.max_ratio)
    outcome = "fail" if sets["coverage_p"] < ALPHA else outcome
    why += f"; {functions.SETS} hold the truth on {sets['set_coverage']:.1%} of rows"
    why += f" (promised {1 - settings.alpha:.0%}); abstains on {details['abstained']:.1%}"
    return Verdict("M11", "Confidence", outcome, number, limit and round(limit, 4), why, details)

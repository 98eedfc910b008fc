"""M10: are probabilities frequencies, and do intervals cover what they promise? And the temperature
that helps.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from ..modeling import kinds
from ..modeling.kinds.classes import log_loss, softmax
from ..settings import Calibration, Kind
from ..types import Floats, Rule
from .by_kind import of_values
from .chance import ALPHA, DRAWS, beyond_chance
from .verdict import Verdict, outcome


def fit_temperature(kind: Kind, raw: Floats, label: NDArray[Any]) -> float:
    """The temperature of a `Rule`, from raw outputs [n, ...] and label [n] of validation data.

    For values: the root mean square of standardised residuals, of greatest Gaussian likelihood. For
    classes: that of least log loss (Guo et al. 2017, arXiv:1706.04599), or 1 where scaling would
    not help; targets are smoothed as in Platt 1999: else a model that gets all of a small set right
    would be scaled to certainty.
    """
    if kinds.of(kind).PROMISES == "deviations":
        return float(of_values().temperature(kinds.of(kind).decide(raw, Rule()), label))
    n, k = raw.shape
    right, wrong = 1 - 1 / (n + 2), 1 / (n + 2) / (k - 1)
    temperature = _scale(raw, wrong + (right - wrong) * np.eye(k)[label])
    helps = log_loss(softmax(raw, temperature), label) < log_loss(softmax(raw), label)
    return temperature if helps else 1.0


def _scale(logits: Floats, targets: Floats) -> float:
    """The temperature, 0.05 to 20, of least cross-entropy with targets [n, k]."""

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits, float(np.exp(log_temperature)))
        return float(-(targets * np.log(np.clip(probabilities, 1e-15, None))).sum(axis=1).mean())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def overconfidence(logits: Floats, label: NDArray[np.int64]) -> tuple[float, float]:
    """By what factor calibrated logits [n, k] are too large for the label [n], and the p-value of
    none.

    The factor is the temperature that these rows call for; the test is that of the likelihood
    ratio. It finds a sure model's rare errors, which ECE does not: where 1 % is wrong, the error of
    any certainty is below 1 %.
    """
    factor = _scale(logits, np.eye(logits.shape[1])[label])
    gain = log_loss(softmax(logits), label) - log_loss(softmax(logits, factor), label)
    return factor, float(stats.chi2.sf(2 * len(label) * max(gain, 0.0), 1))


def events(probabilities: Floats, label: NDArray[np.int64]) -> tuple[Floats, NDArray[np.bool_]]:
    """Promised probability [n] and whether it came true [n]: of the second of two classes, or of
    the most probable one.
    """
    if probabilities.shape[1] == 2:
        return probabilities[:, 1], label == 1
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == label


def bins(promised: Floats, came: NDArray[np.bool_], count: int) -> dict[str, list[float]]:
    """Reliability diagram: mean promise, share that came true and share of rows of each equal-width
    bin with rows.
    """
    index = np.minimum((promised * count).astype(int), count - 1)
    rows = np.bincount(index, minlength=count)
    filled = rows > 0
    means = [np.bincount(index, x, count)[filled] / rows[filled] for x in (promised, came)]
    return {
        "confidence": means[0].tolist(),
        "accuracy": means[1].tolist(),
        "share": (rows[filled] / len(promised)).tolist(),
    }


def ece(diagram: dict[str, list[float]], num: int) -> dict[str, float]:
    """Expected calibration error over n rows (Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602),
    biased and not.

    Of a perfect model it is above 0 by chance: by how much, and with what p-value, say draws of
    each bin from its own promise (Bröcker and Smith 2007, doi:10.1175/WAF993.1). `rms` is Kumar et
    al.'s debiased root mean square gap (2019, arXiv:1909.10155).
    """
    promised, found, share = (np.array(diagram[key]) for key in ("confidence", "accuracy", "share"))
    rows, error = np.rint(share * num).astype(int), float(np.abs(promised - found) @ share)
    drawn = np.random.default_rng(0).binomial(rows, np.clip(promised, 0, 1), (DRAWS, len(rows)))
    chance = np.abs(drawn / rows - promised) @ share
    square = ((promised - found) ** 2 - found * (1 - found) / np.maximum(rows - 1, 1)) @ share
    return {"ece": error, "rms": float(max(0, square)) ** 0.5, **beyond_chance(error, chance)}


def brier(probabilities: Floats, label: NDArray[np.int64], count: int) -> dict[str, float]:
    """Mean squared distance of probabilities [n, k] from the one-hot truth, 0 to 2 (Brier 1950),
    and its parts.

    brier = reliability - resolution + uncertainty + within (Murphy 1973, over equal-width bins and
    summed over classes; `within` is what bins of unequal probabilities leave: Stephenson et al.
    2008, doi:10.1175/2007WAF2006116.1).
    """
    n, k = probabilities.shape
    truth = np.eye(k)[label]
    group = (
        np.minimum((probabilities * count).astype(int), count - 1) + count * np.arange(k)
    ).ravel()  # bin of class
    rows = np.maximum(np.bincount(group, minlength=k * count), 1)
    promised, found = (
        np.bincount(group, values.ravel(), k * count) / rows for values in (probabilities, truth)
    )
    base = truth.mean(axis=0)
    deviation, surprise = probabilities.ravel() - promised[group], truth.ravel() - found[group]
    sums = {
        "brier": (probabilities - truth) ** 2,
        "reliability": (promised - found)[group] ** 2,
        "resolution": (found[group] - np.tile(base, n)) ** 2,
        "within": deviation**2 - 2 * deviation * surprise,
    }
    return {name: float(x.sum() / n) for name, x in sums.items()} | {
        "uncertainty": float((base * (1 - base)).sum())
    }


def judge(
    kind: Kind, raw: Floats, label: NDArray[Any], rule: Rule, settings: Calibration, scale: float
) -> Verdict:
    """Debiased error on test data against its limit, and for classes how many times too large the
    logits are.
    """
    if kinds.of(kind).PROMISES == "deviations":
        answers = kinds.of(kind).decide(raw, rule.without_costs())
        verdict: Verdict = of_values().calibration(answers, label, rule, settings, scale)
        return verdict
    return _judge_probabilities(raw, label, rule, settings)


def _judge_probabilities(
    raw: Floats, label: NDArray[Any], rule: Rule, settings: Calibration
) -> Verdict:
    before, after = softmax(raw), softmax(raw, rule.temperature)
    diagrams = [bins(*events(p, label), settings.bins) for p in (before, after)]
    error = ece(diagrams[1], len(label))
    factor, p = overconfidence(raw / rule.temperature, label)
    details = {
        "diagram": diagrams[1],
        **error,
        **brier(after, label, settings.bins),
        "temperature": rule.temperature,
        "overconfidence": factor,
        "overconfidence_p": p,
        "log_loss": log_loss(after, label),
        "log_loss_uncalibrated": log_loss(before, label),
        "ece_uncalibrated": ece(diagrams[0], len(label))["ece"],
    }
    excess, limit = error["debiased"], settings.max_ece
    why = f"probabilities are off by {excess:.2%} more than chance explains, "
    why += f"{error['ece']:.2%} in all"
    sure = factor > settings.max_overconfidence and p < ALPHA
    if sure:
        why += f"; logits are {factor:.1f} times too large, limit {settings.max_overconfidence:g}"
    passed = outcome(not sure and (excess <= limit or error["p"] >= ALPHA))
    return Verdict("M10", "Calibration", passed, round(excess, 4), limit, why, details)

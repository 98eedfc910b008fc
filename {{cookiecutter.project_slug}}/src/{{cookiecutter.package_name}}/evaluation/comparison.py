"""M6: is one model better than another? For two fixed models on the same rows, and for learners
that are retrained.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .. import pages
from ..modeling import kinds
from ..settings import Comparison, Kind
from ..types import Floats
from .verdict import Outcome, Verdict

Answer = Literal["better", "worse", "cannot tell"]
BASELINES = ("constant", "heuristic")
TINY = 1e-12  # the spread of differences that do not differ, so that nothing is divided by zero


@dataclass(frozen=True)
class Paired:
    """`difference`: mean loss of a minus that of b, with its interval at 1 - alpha, and the p-value
    of no difference.

    `effect` is Cohen's g for classes (share of a's errors among the rows on which one model errs,
    less a half), and dz for values (mean over standard deviation of the differences).
    """

    test: str
    num: int
    difference: float
    low: float
    high: float
    p: float
    effect: float
    alpha: float

    def answer(self, alpha: float) -> Answer:
        """What a is, against b."""
        if self.p >= alpha:
            return "cannot tell"
        return "better" if self.difference < 0 else "worse"


def paired(losses_a: Floats, losses_b: Floats, kind: Kind, alpha: float) -> Paired:
    """Compares the losses [n] of two fixed models on the same rows.

    Losses of values take a t test: skewed as squared errors are, it errs on at most 7 % of equal
    models from 44 rows on. Wilcoxon's test does not ask about means, and flipping signs or
    correcting for the skew gives no fewer errors.
    """
    if not kinds.of(kind).ZERO_ONE:
        return _t(losses_a - losses_b, 1 / len(losses_a), alpha, "paired t over rows")
    return mcnemar(losses_a > losses_b, losses_b > losses_a, alpha)


def mcnemar(only_a: NDArray[np.bool_], only_b: NDArray[np.bool_], alpha: float) -> Paired:
    """Exact McNemar test for the rows [n] on which a alone, and b alone, is wrong.

    Where the models are equal those are coin tosses (McNemar 1947, doi:10.1007/BF02295996). The
    interval of the difference is Wald's with the adjustment of Agresti and Min 2005,
    doi:10.1002/sim.1781.
    """
    n, a, b = len(only_a), int(only_a.sum()), int(only_b.sum())
    p = float(stats.binomtest(a, a + b).pvalue) if a + b else 1.0
    centre = (a - b) / (n + 2)
    half = stats.norm.ppf(1 - alpha / 2) * np.sqrt(a + b + 1 - (a - b) ** 2 / (n + 2)) / (n + 2)
    g = a / (a + b) - 0.5 if a + b else 0.0
    return Paired(
        "exact McNemar", n, (a - b) / n, float(centre - half), float(centre + half), p, g, alpha
    )


def resampled(differences: Floats, num_train: int, num_test: int, alpha: float) -> Paired:
    """Compares two learners by their differences of mean loss [r] on r resamples, each of which
    retrained both.

    Resamples share rows, so their spread is too small by num_test / num_train, which this adds
    (Nadeau and Bengio 2003, doi:10.1023/A:1024068626366).
    """
    return _t(
        differences, 1 / len(differences) + num_test / num_train, alpha, "corrected resampled t"
    )


def seeds(differences: Floats, alpha: float) -> Paired:
    """Compares two learners by their differences of mean loss [s] over s seeds, on one split: that
    split's answer.
    """
    return _t(differences, 1 / len(differences), alpha, "paired t over seeds")


def _t(differences: Floats, factor: float, alpha: float, test: str) -> Paired:
    """Student's t where the mean's variance is `factor` times that of the differences."""
    n = len(differences)
    if n < 2:
        raise ValueError(f"a {test} test needs at least 2 differences, not {n}")
    mean, deviation = float(differences.mean()), max(float(differences.std(ddof=1)), TINY)
    error = deviation * float(np.sqrt(factor))
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * error
    return Paired(test, n, mean, mean - half, mean + half, p, mean / deviation, alpha)


def power(kind: Kind, num: int, difference: float, spread: float, alpha: float) -> float:
    """The probability that `paired` sees, and the right way round, a true difference above 0 on
    that many rows.

    `spread` is the share of rows on which one of the two errs alone, or the standard deviation of
    the differences.
    """
    if not kinds.of(kind).ZERO_ONE:
        edge, shift = stats.t.ppf(1 - alpha / 2, num - 1), difference / spread * np.sqrt(num)
        return float(stats.nct.sf(edge, num - 1, shift))
    # Rows on which one errs alone; of those the better model may have `edges` errors.
    differ = np.arange(num + 1)
    edges = stats.binom.ppf(alpha / 2, differ, 0.5) - 1
    seen = stats.binom.cdf(edges, differ, 0.5 - difference / spread / 2)
    return float(stats.binom.pmf(differ, num, spread) @ seen)


def non_inferior(found: Paired, margin: float) -> Outcome:
    """Whether a candidate may follow another model, from `paired` of its losses and that model's.

    It fails where it is significantly worse, even by less than the margin, and passes where the
    interval of what it loses stays within the margin. `promote` asks this against the champion and
    against the best model there ever was: else a row of champions, each a little worse than the
    last and within the margin, would lose any amount.
    """
    if found.answer(found.alpha) == "worse":
        return "fail"
    return "pass" if found.high <= margin else "cannot tell"


def select(
    losses: dict[str, Floats], operations: dict[str, int], kind: Kind, alpha: float
) -> tuple[str, str]:
    """The candidate for the gate, and why: a dearer one only where it is significantly better than
    the cheaper (M2).
    """
    chosen, *dearer = sorted(losses, key=lambda name: (operations[name], name))
    words = {"better": "is better than", "worse": "is worse than"}
    reasons = []
    for name in dearer:
        test = paired(losses[name], losses[chosen], kind, alpha)
        answer = test.answer(alpha)
        reasons.append(
            f"{name} {words.get(answer, 'cannot be told from')} {chosen}, the cheaper one "
            f"(mean loss {test.difference:+.4f}, {test.low:+.4f} to {test.high:+.4f}, "
            f"{pages.chance(test.p)})"
        )
        chosen = name if answer == "better" else chosen
    return chosen, "; ".join([*reasons, f"{chosen} goes to the gate"])


def judge(losses: dict[str, Floats], chosen: str, kind: Kind, settings: Comparison) -> Verdict:
    """The chosen candidate must be better than every simple baseline, and not worse than any other
    candidate.
    """
    details: dict[str, Any] = {}
    reasons = list[str]()
    outcome: Outcome = "pass"
    for name, other in losses.items():
        if name == chosen:
            continue
        test = paired(losses[chosen], other, kind, settings.alpha)
        answer = test.answer(settings.alpha)
        details[name] = {**asdict(test), "answer": answer}
        if answer == "worse":
            outcome = "fail"
            reasons.append(f"worse than {name} ({pages.chance(test.p)})")
        elif answer == "cannot tell" and name in BASELINES:
            outcome = "fail" if outcome == "fail" else "cannot tell"
            reasons.append(f"cannot be told from {name} ({pages.chance(test.p)})")
    number = max((details[n]["p"] for n in BASELINES if n in details), default=None)
    passed = "better than the simple baselines, and not worse than any other candidate"
    why = "; ".join(reasons) or passed
    why += f"; at most {pages.chance(number)} for a simple one" if number is not None else ""
    return Verdict("M6", "Comparison", outcome, number, settings.alpha, why, details)

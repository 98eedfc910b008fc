"""M6: is one fixed model better than another on the same rows? Exact McNemar test, effect size and interval."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..settings import Comparison
from .verdict import Outcome, Verdict

Bools = NDArray[np.bool_]
Answer = Literal["better", "worse", "cannot tell"]


@dataclass(frozen=True)
class Paired:
    """`only_a`: rows that model a alone gets right; difference of accuracies a - b with its interval; exact p-value."""

    only_a: int
    only_b: int
    difference: float
    low: float
    high: float
    p: float

    def answer(self, alpha: float) -> Answer:
        if self.p >= alpha:
            return "cannot tell"
        return "better" if self.difference > 0 else "worse"


def mcnemar(correct_a: Bools, correct_b: Bools, alpha: float) -> Paired:
    """Exact McNemar test of correct answers [n] by two models on the same rows.

    The rows on which they differ are coin tosses under the null (McNemar 1947, doi:10.1007/BF02295996). The interval of
    the difference is Wald's with the adjustment of Agresti and Min 2005, doi:10.1002/sim.1781.
    """
    n = len(correct_a)
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((~correct_a & correct_b).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    b, c, m = only_a + 0.5, only_b + 0.5, n + 2
    centre, half = (b - c) / m, stats.norm.ppf(1 - alpha / 2) * np.sqrt(b + c - (b - c) ** 2 / m) / m
    return Paired(only_a, only_b, (only_a - only_b) / n, float(centre - half), float(centre + half), p)


def select(correct: dict[str, Bools], num_parameters: dict[str, int], alpha: float) -> tuple[str, str]:
    """The candidate that goes to the gate, and why: the better one, or the cheaper one where no test can tell (M2)."""
    cheap, dear = sorted(correct, key=lambda name: num_parameters[name])
    test = mcnemar(correct[dear], correct[cheap], alpha)
    found = test.answer(alpha)
    chosen = dear if found == "better" else cheap
    relation = {"better": "is better than", "worse": "is worse than", "cannot tell": "cannot be told from"}[found]
    numbers = f"right alone on {test.only_a} and {test.only_b} rows, p = {test.p:.3g}"
    return chosen, f"{dear} {relation} {cheap}, the cheaper one ({numbers}): {chosen} goes to the gate"


def judge(correct: dict[str, Bools], chosen: str, settings: Comparison) -> Verdict:
    """The candidate must be better than every simple baseline and not worse than the other candidate."""
    tests = {name: mcnemar(correct[chosen], c, settings.alpha) for name, c in correct.items() if name != chosen}
    answers = {name: t.answer(settings.alpha) for name, t in tests.items()}
    learned = {"network", "classical"}
    bad = [
        f"{answers[n]} against {n}"
        for n in tests
        if answers[n] != "better" and (n not in learned or answers[n] == "worse")
    ]
    passed = "better than the simple baselines, not worse than the other candidate"
    details: dict[str, Any] = {name: {**asdict(t), "answer": answers[name]} for name, t in tests.items()}
    worst = max(t.p for t in tests.values())
    outcome: Outcome = "pass" if not bad else ("fail" if any("worse" in b for b in bad) else "cannot tell")
    return Verdict("M6", "Comparison", outcome, worst, settings.alpha, "; ".join(bad) or passed, details)

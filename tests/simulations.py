"""Simulations of the statistics behind the gate: `python simulations.py PACKAGE [NAME ...]` in a generated project.

It prints one JSON object, which test_statistics.py judges: the template's own environment has no numpy.
"""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

PACKAGE, CONFIG = sys.argv[1], yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["evaluation"]
np: Any = importlib.import_module("numpy")
Array = Any


def module(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.{name}")


comparison, calibration, confidence, cost, slices = (
    module(f"evaluation.{name}") for name in ("comparison", "calibration", "confidence", "cost", "slices")
)
types, kinds, limits = module("types"), module("modeling.kinds"), module("settings")
softmax = module("modeling.kinds.classes").softmax
LIMITS = {
    "M10": limits.Calibration(**CONFIG["calibration"]),
    "M11": limits.Confidence(**CONFIG["confidence"]),
    "M12": limits.Slices(**CONFIG["slices"]),
}


def retrained(rng: Any, repeats: int, rows: int, resamples: int, width: int) -> Array:
    """Differences of error [repeats, resamples] of two learners whose true errors are equal, retrained on resamples.

    Each is the classifier of the nearest mean on columns of its own, which no more and no less belong to the label.
    """
    x = rng.normal(size=(repeats, rows, 2 * width))
    label = np.where(rng.random((repeats, rows)) < 0.5, 1.0, -1.0)
    x += 0.35 * label[..., None]
    order = rng.random((repeats, resamples, rows)).argsort(axis=2)
    train = order < rows * 3 // 4  # ranks are a random order too
    centres = []
    for side in (1.0, -1.0):
        mask = train & (label == side)[:, None]
        centres.append(mask.astype(float) @ x / mask.sum(axis=2, keepdims=True))
    weight, middle = centres[0] - centres[1], (centres[0] + centres[1]) / 2
    errors = []
    for part in (slice(width), slice(width, None)):
        offset = (weight[..., part] * middle[..., part]).sum(axis=2)
        score = weight[..., part] @ x[..., part].swapaxes(1, 2) - offset[..., None]
        wrong = (np.sign(score) != label[:, None]) & ~train
        errors.append(wrong.sum(axis=2) / (~train).sum(axis=2))
    return errors[0] - errors[1]


def resampled_alarms(rng: Any) -> dict[str, float]:
    """False alarms of the corrected and of the naive t test over 2,000 comparisons of retrained learners."""
    differences = np.concatenate([retrained(rng, 100, 200, 30, 3) for _ in range(20)])
    ours = [comparison.resampled(d, 150, 50, 0.05).p < 0.05 for d in differences]
    naive = [comparison.seeds(d, 0.05).p < 0.05 for d in differences]
    return {"corrected": float(np.mean(ours)), "naive": float(np.mean(naive)), "repeats": len(differences)}


def gate_alarms(rng: Any) -> dict[str, float]:
    """False alarms of `paired` over 2,000 pairs of equally good models, by kind, rows and shape of the errors."""
    found = {}
    for rows in (132, 170, 540):
        hard = rng.random((2000, rows, 1)) < 0.05  # rows that both tend to get wrong
        wrong = (rng.random((2000, rows, 2)) < np.where(hard, 0.6, 0.02)).astype(float)
        found[f"classes {rows}"] = alarms(wrong, "binary")
        shared, own = rng.normal(size=(2000, rows, 1)), rng.normal(size=(2000, rows, 2))
        found[f"normal {rows}"] = alarms((0.9 * shared + 0.4 * own) ** 2, "regression")
        tails = rng.standard_t(5, (2000, rows)) * np.sqrt(3 / 5)  # of equal variance, and heavier: the losses are skew
        found[f"normal and heavy tails {rows}"] = alarms(np.stack([own[..., 0], tails], 2) ** 2, "regression")
    return found


def alarms(losses: Array, kind: str) -> float:
    return float(np.mean([comparison.paired(pair[:, 0], pair[:, 1], kind, 0.05).p < 0.05 for pair in losses]))


def power(rng: Any) -> dict[str, list[float]]:
    """What `power` promises, and the share of simulated comparisons that see the difference."""
    wrong = rng.choice(3, p=[0.96, 0.03, 0.01], size=(2000, 540))  # neither or both, a alone, b alone
    pairs = np.stack([wrong == 1, wrong == 2], axis=2).astype(float)
    shifted = rng.normal(0.1, 0.4, (2000, 132))
    values = np.stack([shifted, np.zeros_like(shifted)], axis=2)
    return {
        "classes": [comparison.power("binary", 540, 0.02, 0.04, 0.05), alarms(pairs, "binary")],
        "values": [comparison.power("regression", 132, 0.1, 0.4, 0.05), alarms(values, "regression")],
    }


def creep(rng: Any) -> dict[str, float]:
    """Mean error after 60 attempts to promote a model .4 points worse than the champion, from an error of 5 %."""
    found = {}
    for guarded in (True, False):
        ends = []
        for _ in range(40):
            best = champion = (rng.random(540) < 0.05).astype(float)
            for _ in range(60):
                new, lost = champion.copy(), rng.random(540)
                new[(champion == 0) & (lost < 0.009)] = 1
                new[(champion == 1) & (lost < 0.05)] = 0
                others = [champion, best] if guarded else [champion]
                tests = [comparison.paired(new, other, "binary", 0.05) for other in others]
                if all(comparison.non_inferior(test, 0.02) == "pass" for test in tests):
                    champion = new
                    best = new if new.mean() <= best.mean() else best
            ends.append(float(champion.mean()))
        found["guarded" if guarded else "unguarded"] = float(np.mean(ends))
    return found


def good_model(kind: str, rows: int, rng: Any, classes: int) -> tuple[Array, Array]:
    """Raw outputs that are right about themselves, but for a wrong scale of their own, and the label [rows]."""
    if kind == "regression":
        value, log = rng.normal(size=rows), 0.2 * rng.normal(size=rows)
        return np.stack([value, log], axis=1), value + np.exp(log) * rng.normal(size=rows)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), rng.integers(0, classes, rows)] += rng.gamma(4, 3 if classes > 2 else 1.4, rows)
    label = (softmax(logits).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return logits, label


def verdicts(kind: str, classes: int, num: tuple[int, int, int], repeats: int, rng: Any) -> Any:
    """Shares of M10, M11 and M12 that pass a good model, fitted and judged on so many rows."""
    passed = np.zeros(3)
    for _ in range(repeats):
        (raw, label), calibrating, test = (good_model(kind, n, rng, classes) for n in num)
        wrong = np.exp(0.5 * rng.normal())  # the scale is for the temperature to mend
        rule = types.Rule(temperature=calibration.fit_temperature(kind, scaled(kind, raw, wrong), label))
        splits = [(scaled(kind, x, wrong), y) for x, y in ((raw, label), calibrating, test)]
        scale = float(test[1].std()) if kind == "regression" else 1.0
        rule = confidence.fit(kind, rule, splits[0], splits[1], LIMITS["M11"], scale)
        losses = kinds.of(kind).row_losses(kinds.of(kind).decide(splits[2][0], rule), test[1], scale)
        columns = {f"c{i}": rng.normal(size=num[2]) for i in range(5)} | {"s": rng.choice(["a", "b", "c"], num[2])}
        judged = (
            calibration.judge(kind, *splits[2], rule, LIMITS["M10"], scale),
            confidence.judge(kind, *splits[2], rule, LIMITS["M11"], scale, num[1]),
            slices.judge(losses, {"a": columns["s"] == "a"}, columns, rng.normal(size=(num[2], 4)), LIMITS["M12"]),
        )
        passed += [verdict.outcome == "pass" for verdict in judged]
    return dict(zip(("M10", "M11", "M12"), (passed / repeats).tolist(), strict=True))


def scaled(kind: str, raw: Array, wrong: float) -> Array:
    return raw + np.array([0, np.log(wrong)]) if kind == "regression" else raw * wrong


def good_models(rng: Any) -> dict[str, dict[str, float]]:
    return {
        "regression": verdicts("regression", 0, (44, 44, 132), 200, rng),
        "binary": verdicts("binary", 2, (57, 57, 170), 200, rng),
        "multiclass": verdicts("multiclass", 10, (180, 180, 540), 200, rng),
    }


def thresholds(rng: Any) -> dict[str, float]:
    """Mean cost on fresh data with the threshold of 57 rows, of their least cost alone, and with Bayes' own."""
    costs, found = np.array([[0.0, 1.0], [4.0, 0.0]]), []
    fresh = rng.beta(0.5, 0.7, 20_000)
    truth = rng.random(20_000) < fresh
    for _ in range(300):
        p = rng.beta(0.5, 0.7, 57)
        label = (rng.random(57) < p).astype(int)
        order = np.argsort(p)
        total = np.cumsum(np.where(label[order] == 1, 4, -1))
        least = np.nextafter(p[order][total.argmin()], 1) if total.min() < 0 else 0.0
        used = (cost.threshold(p, label, costs), least, 0.2)
        found.append([np.where(truth, 4 * (fresh < t), fresh >= t).mean() for t in used])
    return dict(zip(("ours", "least", "bayes"), np.mean(found, axis=0).tolist(), strict=True))


if __name__ == "__main__":
    parts: list[Callable[[Any], Any]] = [
        resampled_alarms,
        gate_alarms,
        power,
        creep,
        good_models,
        thresholds,
    ]
    chosen = [part for part in parts if part.__name__ in sys.argv[2:] or len(sys.argv) == 2]
    print(json.dumps({part.__name__: part(np.random.default_rng(7)) for part in chosen}))

import numpy as np
import pytest
import torch
import yaml
from harness import ROOT, module
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_calibration_error,
)

calibration = module("evaluation.calibration")
kinds, classes, types = module("modeling.kinds"), module("modeling.kinds.classes"), module("types")
softmax, Rule = classes.softmax, types.Rule
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluation"]
LIMITS = module("settings").Calibration.model_validate(SHIPPED["calibration"])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def drawn(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels [n] from the probabilities that logits [n, k] promise."""
    return np.asarray(
        (softmax(logits).cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)
    )


@pytest.mark.row("M10")
def test_temperature_recovers_the_scale_and_never_worsens_the_loss(
    rng: np.random.Generator,
) -> None:
    logits = rng.normal(size=(4000, 3)) * 2
    label = drawn(logits, rng)
    assert calibration.fit_temperature("multiclass", logits * 3, label) == pytest.approx(3, rel=0.1)
    for scale in (0.2, 1, 5):
        found = calibration.fit_temperature("multiclass", logits * scale, label)
        before, after = (
            calibration.log_loss(softmax(logits * scale, t), label) for t in (1.0, found)
        )
        assert after <= before


@pytest.mark.row("M10")
def test_temperature_never_worsens_the_loss_of_few_rows(rng: np.random.Generator) -> None:
    for n in (2, 5, 20):
        for scale in (0.1, 1, 10):
            logits, label = rng.normal(size=(n, 2)) * scale, rng.integers(0, 2, n)
            found = calibration.fit_temperature("binary", logits, label)
            assert calibration.log_loss(softmax(logits, found), label) <= calibration.log_loss(
                softmax(logits), label
            )


@pytest.mark.row("M10")
def test_a_small_validation_set_without_errors_is_not_taken_for_certainty() -> None:
    label = np.arange(100) % 3
    assert calibration.fit_temperature("multiclass", 4.0 * np.eye(3)[label], label) > 0.5


@pytest.mark.row("M10")
def test_calibration_error_is_that_of_torchmetrics_and_sklearn(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(500, 4)) * 2
    label = drawn(logits, rng)
    p = softmax(logits * 1.5)
    diagram = calibration.bins(*calibration.events(p, label), 15)
    known = multiclass_calibration_error(
        torch.from_numpy(p), torch.from_numpy(label), num_classes=4, n_bins=15
    )
    assert calibration.ece(diagram, 500)["ece"] == pytest.approx(float(known))
    two = np.ascontiguousarray(p[:, :2] / p[:, :2].sum(axis=1, keepdims=True))
    hit = (label == 1).astype(int)
    diagram = calibration.bins(*calibration.events(two, hit), 15)
    known = binary_calibration_error(torch.tensor(two[:, 1]), torch.from_numpy(hit), n_bins=15)
    assert calibration.ece(diagram, 500)["ece"] == pytest.approx(float(known))
    found, promised = calibration_curve(hit, two[:, 1], n_bins=15)
    assert diagram["accuracy"] == pytest.approx(found.tolist())
    assert diagram["confidence"] == pytest.approx(promised.tolist())


@pytest.mark.row("M10")
def test_a_perfect_model_has_error_by_chance_and_none_after_debiasing(
    rng: np.random.Generator,
) -> None:
    found = []
    for _ in range(200):
        logits = rng.normal(size=(170, 2))
        p = softmax(logits)[:, 1]
        found.append(calibration.ece(calibration.bins(p, rng.random(170) < p, 15), 170))
    assert (
        np.mean([f["ece"] for f in found]) > 0.07
        and np.mean([f["debiased"] for f in found]) < 0.012
    )
    assert (
        np.mean([f["p"] < 0.05 for f in found]) < 0.09
        and np.mean([f["rms"] ** 2 for f in found]) < 0.005
    )
    says_90 = {"confidence": [0.9], "accuracy": [0.6], "share": [1.0]}
    known = calibration.ece(says_90, 1000)
    assert known["ece"] == pytest.approx(0.3) and known["debiased"] == pytest.approx(0.3, abs=0.01)
    assert known["rms"] == pytest.approx(np.sqrt(0.09 - 0.6 * 0.4 / 999))


@pytest.mark.row("M10")
def test_the_brier_score_is_that_of_sklearn_and_the_sum_of_its_parts(
    rng: np.random.Generator,
) -> None:
    logits = rng.normal(size=(300, 2))
    label = drawn(logits, rng)
    p = softmax(logits)
    found = calibration.brier(p, label, 15)
    assert found["brier"] == pytest.approx(2 * brier_score_loss(label, p[:, 1]))
    for k, width in ((2, 15), (5, 3)):
        p, label = rng.dirichlet(np.ones(k), 200), rng.integers(0, k, 200)
        found = calibration.brier(p, label, width)
        parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within"]
        assert (
            found["brier"] == pytest.approx(parts)
            and min(found["reliability"], found["resolution"]) >= 0
        )


@pytest.mark.row("M10")
@pytest.mark.parametrize(
    ("kind", "k", "n", "sharp"), [("multiclass", 10, 540, 4.0), ("binary", 2, 170, 1.3)]
)
@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "pass"), (4.0, "fail")])
def test_an_over_confident_head_is_refused(
    kind: str, k: int, n: int, sharp: float, factor: float, outcome: str, rng: np.random.Generator
) -> None:
    """Even where so few answers are wrong that no gap in a bin could be large."""
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), rng.integers(0, k, n)] += rng.gamma(4, sharp, n)
    label = drawn(logits, rng)
    verdict = calibration.judge(kind, logits * factor, label, Rule(), LIMITS, 1.0)
    assert verdict.outcome == outcome
    if outcome == "fail":
        assert (
            verdict.details["overconfidence"] > LIMITS.max_overconfidence
            and "times too large" in verdict.why
        )

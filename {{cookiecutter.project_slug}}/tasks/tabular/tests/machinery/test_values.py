"""The quality methods and the monitor where answers are values."""

from typing import Any

import numpy as np
import pytest
import yaml
from harness import ROOT, module
from scipy import stats

calibration, comparison, confidence, cost, direction = (
    module(f"evaluation.{name}")
    for name in ("calibration", "comparison", "confidence", "cost", "direction")
)
kinds, types, settings = (module(name) for name in ("modeling.kinds", "types", "settings"))
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluation"]
CALIBRATION = settings.Calibration.model_validate(SHIPPED["calibration"])
CONFIDENCE = settings.Confidence.model_validate(SHIPPED["confidence"])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.row("M4")
def test_values_shift_by_the_quantile_of_what_they_miss(rng: np.random.Generator) -> None:
    label = rng.normal(50, 10, 20000)
    raw = np.full((20000, 1), 50.0)
    found = cost.fit("regression", {"under": 3.0, "over": 1.0}, raw, label, 10.0)
    assert found["shift"] == pytest.approx(0.6745, abs=0.03)  # the normal quantile at 3 / 4
    assert "shift" not in cost.fit("regression", None, raw, label, 10.0)
    assert cost.fit("regression", {"under": 2.0, "over": 2.0}, raw, label, 10.0)["shift"] == 0.0
    means = {
        shift: cost.row_costs(
            "regression",
            {"under": 3.0, "over": 1.0},
            kinds.of("regression").decide(raw, types.Rule(temperature=10.0, shift=shift)),
            label,
        ).mean()
        for shift in (0.0, found["shift"], 1.5)
    }
    assert min(means, key=lambda shift: means[shift]) == found["shift"]
    cheapest = cost.constant_cost("regression", None, np.array([1.0, 2.0, 9.0]), 0)
    assert cheapest == (2.0, pytest.approx(8 / 3))


@pytest.mark.row("M11")
@pytest.mark.parametrize(
    ("shape", "outcome"), [("good", "pass"), ("shuffled", "fail"), ("equal", "pass")]
)
def test_deviations_must_keep_what_they_promise(
    shape: str, outcome: str, rng: np.random.Generator
) -> None:
    spread = np.full(132, 1.0) if shape == "equal" else np.exp(0.5 * rng.normal(size=132))
    label = spread * rng.normal(size=132)
    shown = rng.permutation(spread) if shape == "shuffled" else spread
    raw = np.stack([np.zeros(132), np.log(shown)], axis=1)
    verdict = confidence.judge(
        "regression", raw, label, types.Rule(conformal_quantile=2.5), CONFIDENCE, 1.0, 44
    )
    assert verdict.outcome == outcome


@pytest.mark.row("M11")
def test_a_model_without_deviations_is_judged_by_its_intervals(rng: np.random.Generator) -> None:
    raw, label = np.zeros((132, 1)), rng.normal(size=132)
    rule = confidence.fit("regression", types.Rule(), (raw, label), (raw, label), CONFIDENCE, 1.0)
    assert rule.abstain_below is None
    verdict = confidence.judge("regression", raw, label, rule, CONFIDENCE, 1.0, 132)
    assert (verdict.outcome, verdict.number) == ("pass", None) and "not applicable" in verdict.why
    narrow = rule.model_copy(update={"conformal_quantile": 1.0})
    assert (
        confidence.judge("regression", raw, label, narrow, CONFIDENCE, 1.0, 132).outcome == "fail"
    )


def values(score: Any) -> Any:
    return kinds.of("regression").decide(score[:, None], types.Rule())


@pytest.mark.row("M8")
def test_a_value_may_move_by_its_tolerance() -> None:
    inputs = {"x": np.arange(10.0)}
    for tolerance, violated in ((1.1, 0), (0.9, 10)):
        found = direction.altered(
            "regression",
            lambda i: values(i["x"]),
            inputs,
            {"up": lambda i: {"x": i["x"] + 1}},
            tolerance,
        )
        assert found["up"].sum() == violated


@pytest.mark.row("M9")
@pytest.mark.parametrize(("sign", "violated"), [(1, 0), (-1, 40)])
def test_a_value_must_move_the_declared_way(sign: int, violated: int) -> None:
    inputs, rng = {"x": np.arange(40) % 2 - 0.5}, np.random.default_rng(5)
    up = types.Direction(lambda a, b: a, lambda a, b: {"x": a["x"] + 1}, label="b")
    found = direction.misdirected(
        "regression",
        lambda i: values(sign * i["x"]),
        inputs,
        inputs["x"],
        {"up": up},
        [],
        0.01,
        rng,
    )
    assert found["up"].sum() == violated


@pytest.mark.row("M6")
def test_losses_of_values_take_the_paired_t_test_of_scipy(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 60)) ** 2
    found, known = comparison.paired(a, b, "regression", 0.05), stats.ttest_rel(a, b)
    interval = known.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx(
        (known.pvalue, interval.low, interval.high)
    )
    assert found.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert comparison.paired(a, a, "regression", 0.05).p == 1.0


@pytest.mark.row("M6")
def test_power_of_a_paired_t_test_is_that_of_gpower() -> None:
    assert comparison.power("regression", 34, 0.5, 1.0, 0.05) == pytest.approx(0.8078, abs=1e-4)


@pytest.mark.row("M10")
def test_temperature_of_values_is_the_scale_of_their_errors(rng: np.random.Generator) -> None:
    label = rng.normal(0, 7, 5000)
    assert calibration.fit_temperature("regression", np.zeros((5000, 1)), label) == pytest.approx(
        7, rel=0.05
    )
    raw = np.stack([np.zeros(5000), np.full(5000, np.log(2.0))], axis=1)
    assert calibration.fit_temperature("regression", raw, label) == pytest.approx(3.5, rel=0.05)


@pytest.mark.row("M10")
@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "pass"), (0.25, "fail"), (4.0, "fail")])
def test_deviations_that_promise_too_much_or_too_little_are_refused(
    columns: int, factor: float, outcome: str, rng: np.random.Generator
) -> None:
    raw = np.zeros((132, columns))
    label = rng.normal(0, 3, 132)
    assert (
        calibration.judge(
            "regression", raw, label, types.Rule(temperature=3 * factor), CALIBRATION, 3.0
        ).outcome
        == outcome
    )


@pytest.mark.row("O3", "O5")
def test_a_value_is_wrong_where_the_truth_lies_outside_its_interval() -> None:
    row = {"label": 10.0, "confidence": -1.5, "abstain": False, "version": "1", "instance": {}}
    row["signals"] = {"interval": [8.0, 11.0], "deviation": 1.5}
    rows = [{**row, "feedback": given} for given in (8, 11, 11.5, 7, None)]
    rows.append({**row, "feedback": None, "abstain": True})
    card = module("packaging.bundle").Card.model_construct(kind="regression", labels=[])
    found = module("monitoring.quality").measure(rows, card, 0.95)
    assert [found[n] for n in ("rows", "labelled", "errors", "error_rate")] == [6, 4, 2, 0.5]
    assert found["mean_absolute_error"] == (2 + 1 + 1.5 + 3) / 4 and found["mean_deviation"] == 1.5
    assert found["abstention_rate"] == pytest.approx(1 / 6) and found["label_shares"] == {}
    assert found["mean_confidence"] is None and found["estimated_accuracy"] is None


@pytest.mark.row("M10")
def test_coverage_of_normal_residuals_is_that_of_the_levels() -> None:
    rng, coverage = np.random.default_rng(0), module("evaluation.of_values").coverage
    found = coverage(rng.normal(size=20000))
    assert found["diagram"]["coverage"] == pytest.approx(found["diagram"]["level"], abs=0.015)
    wide = coverage(rng.normal(size=20000) / 4)
    assert wide["diagram"]["coverage"][4] == pytest.approx(0.993, abs=0.005) and wide["p"] < 0.01

import numpy as np
import pytest
from harness import Project, module
from scipy import stats
from sklearn.metrics import brier_score_loss

comparison, perturbation, invariance, direction, calibration, confidence, slices = (
    module(f"evaluation.{n}")
    for n in ("comparison", "perturbation", "invariance", "direction", "calibration", "confidence", "slices")
)
decide = module("modeling.predictions").decide


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.row("M6")
def test_mcnemar_is_a_coin_toss_over_the_rows_that_differ() -> None:
    a, b = np.ones(100, bool), np.ones(100, bool)
    a[:2], b[2:14] = False, False
    found = comparison.mcnemar(a, b, 0.05)
    assert (found.only_a, found.only_b) == (12, 2)
    assert found.p == pytest.approx(2 * stats.binom.cdf(2, 14, 0.5)) == pytest.approx(0.01294, abs=1e-5)
    assert found.difference == pytest.approx(0.1) and 0 < found.low < 0.1 < found.high
    assert comparison.mcnemar(a, a, 0.05).p == 1.0


@pytest.mark.row("M6")
def test_false_alarms_of_the_gates_test_stay_below_the_nominal_rate(rng: np.random.Generator) -> None:
    alarms = 0
    for _ in range(500):
        a, b = rng.random((2, 300)) < 0.9
        alarms += comparison.mcnemar(a, b, 0.05).p < 0.05
    assert alarms / 500 <= 0.05


@pytest.mark.row("M2", "M6")
def test_the_cheaper_candidate_goes_on_where_no_test_can_tell() -> None:
    good, bad = np.ones(200, bool), np.arange(200) % 4 > 0
    sizes = {"network": 1000, "classical": 10}
    assert comparison.select({"network": good, "classical": bad}, sizes, 0.05)[0] == "network"
    assert comparison.select({"network": good, "classical": good}, sizes, 0.05)[0] == "classical"
    assert comparison.select({"network": bad, "classical": good}, sizes, 0.05)[0] == "classical"


@pytest.mark.row("M6")
@pytest.mark.parametrize(("share", "outcome"), [(0.5, "pass"), (0.99, "cannot tell"), (1.0, "fail")])
def test_the_candidate_must_beat_the_simple_baselines(
    share: float, outcome: str, project: Project, rng: np.random.Generator
) -> None:
    mine = rng.random(400) < 0.9
    simple = rng.random(400) < share if share < 0.99 else (mine.copy() if share < 1 else np.ones(400, bool))
    found = comparison.judge({"network": mine, "majority": simple}, "network", project.settings().evaluation.comparison)
    assert found.outcome == outcome


@pytest.mark.row("M7")
def test_attacks_stay_in_their_ball_and_raise_the_loss(trained: Project) -> None:
    network = module("modeling.candidates").load(trained.settings())["network"].network
    test = module("data.datamodule").load(trained.settings(), "test")
    scale = module("evaluation.behaviour").SCALE
    losses = []
    for steps in (1, 5):
        moved = perturbation.attack(network, test.inputs, test.label, scale, 0.05, steps)
        for name, range_ in scale.items():
            assert np.abs(moved[name] - test.inputs[name]).max() <= 0.05 * range_ * (1 + 1e-5)
        logits = module("modeling.candidates").NetworkCandidate(network).outputs(moved).logits
        losses.append(calibration.log_loss(module("modeling.predictions").softmax(logits), test.label))
    clean = module("modeling.candidates").NetworkCandidate(network).outputs(test.inputs).logits
    assert (
        calibration.log_loss(module("modeling.predictions").softmax(clean), test.label) < losses[0] <= losses[1] + 1e-3
    )


@pytest.mark.row("M7")
def test_a_brittle_model_is_refused(project: Project) -> None:
    limits = project.settings().evaluation.perturbation
    assert perturbation.judge(1.0, {"a": [1.0] * 5}, {"PGD": 0.9}, limits).outcome == "pass"
    assert perturbation.judge(1.0, {"a": [1.0, 0.3, 0.1, 0.1, 0.1]}, {"PGD": 0.9}, limits).outcome == "fail"
    assert perturbation.judge(1.0, {"a": [1.0] * 5}, {"PGD": 0.1}, limits).outcome == "fail"


@pytest.mark.row("M8")
def test_invariance_counts_the_predictions_that_change(project: Project) -> None:
    inputs = {"x": np.arange(10.0)}
    found = invariance.violations(
        lambda i: (i["x"] > 4.5).astype(int), inputs, {"shift": lambda i: {"x": i["x"] + 1}, "none": dict}
    )
    assert found["shift"].tolist() == [False] * 4 + [True] + [False] * 5 and not found["none"].any()
    verdict = invariance.judge(found, project.settings().evaluation.invariance, 5)
    assert (verdict.outcome, verdict.number, verdict.details["violating_rows"]["shift"]) == ("fail", 0.1, [4])


@pytest.mark.row("M9")
def test_direction_finds_a_model_that_moves_the_wrong_way(rng: np.random.Generator, project: Project) -> None:
    label = np.arange(40) % 2
    inputs = {"x": label.astype(float)}
    blend = {"more": (lambda a, b: {"x": 0.7 * a["x"] + 0.3 * b["x"]}, lambda a, b: {"x": 0.3 * a["x"] + 0.7 * b["x"]})}
    limits = project.settings().evaluation.direction
    for sign, outcome in ((1, "pass"), (-1, "fail")):

        def probabilities(i: dict[str, np.ndarray], sign: int = sign) -> np.ndarray:
            return np.stack([0.5 - sign * (i["x"] - 0.5) / 2, 0.5 + sign * (i["x"] - 0.5) / 2], axis=1)

        found = direction.violations(probabilities, inputs, label, blend, rng)
        assert direction.judge(found, limits, 3).outcome == outcome


@pytest.mark.row("M10")
def test_temperature_recovers_the_scale_and_never_worsens_the_loss(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4000, 3)) * 2
    label = np.array([rng.choice(3, p=p) for p in module("modeling.predictions").softmax(logits)])
    assert calibration.fit_temperature(logits * 3, label) == pytest.approx(3, rel=0.1)
    for scale in (0.2, 1, 5):
        found = calibration.fit_temperature(logits * scale, label)
        softmax = module("modeling.predictions").softmax
        assert calibration.log_loss(softmax(logits * scale, found), label) <= calibration.log_loss(
            softmax(logits * scale), label
        )


@pytest.mark.row("M10")
def test_a_small_validation_set_without_errors_is_not_taken_for_certainty() -> None:
    label = np.arange(100) % 3
    logits = 4.0 * np.eye(3)[label]
    assert calibration.fit_temperature(logits, label) > 0.5


@pytest.mark.row("M10")
def test_calibration_error_and_brier_score_have_their_known_values(rng: np.random.Generator) -> None:
    probabilities = np.tile([0.9, 0.1], (1000, 1))
    label = (np.arange(1000) % 10 >= 6).astype(int)  # says .9, right on .6
    assert calibration.ece(calibration.bins(probabilities, label, 15)) == pytest.approx(0.3)
    assert calibration.brier(probabilities, label) == pytest.approx(2 * brier_score_loss(label, probabilities[:, 1]))


@pytest.mark.row("M11")
def test_risk_coverage_and_the_threshold_for_a_target_error() -> None:
    sure, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])
    coverage, risk = confidence.risk_coverage(sure, right)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0] and risk == pytest.approx([0, 0, 1 / 3, 1 / 4])
    assert confidence.abstention_threshold(sure, right, 0.1) == 0.8
    assert confidence.abstention_threshold(sure, right, 0.3) == 0.0
    assert confidence.abstention_threshold(sure, ~right, 0.0) == 1.0


@pytest.mark.row("M11")
def test_conformal_sets_cover_what_they_promise(rng: np.random.Generator) -> None:
    covered = []
    for _ in range(200):
        probabilities = rng.dirichlet(np.ones(5), 700)
        label = np.array(
            [np.searchsorted(np.cumsum(p), u) for p, u in zip(probabilities, rng.random(700), strict=True)]
        ).clip(max=4)
        quantile = confidence.conformal_quantile(probabilities[:200], label[:200], 0.1)
        sets = decide(np.log(probabilities[200:]), 1.0, 0, quantile).sets
        covered.append(sets[np.arange(500), label[200:]].mean())
    assert 0.89 <= np.mean(covered) <= 0.92


@pytest.mark.row("M12")
def test_the_worst_slice_and_its_interval(project: Project) -> None:
    limits = project.settings().evaluation.slices
    right = np.ones(200, bool)
    right[:30] = np.arange(30) % 2 == 0
    masks = {"bad": np.arange(200) < 30, "good": np.arange(200) >= 30, "tiny": np.arange(200) < 3}
    found = slices.judge(right, masks, limits)
    rows = found.details["slices"]
    assert [r["slice"] for r in rows] == ["bad", "good"] and found.outcome == "fail"
    wanted = stats.binomtest(15, 30).proportion_ci(1 - limits.alpha / 2, method="wilson")
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((wanted.low, wanted.high))
    assert slices.judge(np.ones(200, bool), masks, limits).outcome == "pass"


def test_the_report_is_one_page_without_outside_files(trained: Project) -> None:
    text = (trained.settings().paths.reports / "evaluation.html").read_text(encoding="utf-8")
    assert text.count("<img") >= 8 and "http://" not in text and "https://" not in text and "<script" not in text


def test_evaluation_follows_from_its_inputs_alone(trained: Project) -> None:
    path = trained.settings().paths.reports / "evaluation.json"
    before = path.read_bytes()
    trained.run("evaluate")
    assert path.read_bytes() == before

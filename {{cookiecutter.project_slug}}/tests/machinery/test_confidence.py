import numpy as np
import pytest
import yaml
from harness import ROOT, module
from kinds import having
from scipy import stats

confidence, conformal = module("evaluation.confidence"), module("evaluation.conformal")
kinds, types = module("modeling.kinds"), module("types")
Rule = types.Rule
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluation"]
LIMITS = module("settings").Confidence.model_validate(SHIPPED["confidence"])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.row("M11")
def test_risk_coverage_and_the_threshold_for_a_target_error() -> None:
    sure, wrong = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.0, 0, 1, 0])
    coverage, risk = confidence.risk_coverage(sure, wrong)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0] and risk == pytest.approx(
        [0, 0, 1 / 3, 1 / 4]
    )
    assert confidence.abstention_threshold(sure, wrong, 0.1) == 0.8
    assert confidence.abstention_threshold(sure, wrong, 0.3) is None
    assert confidence.abstention_threshold(sure, 1 - wrong, 0.0) == 1.0
    assert (
        confidence.abstention_threshold(np.array([0.9, 0.8, 0.8]), np.array([0.0, 0, 1]), 0.1)
        == 0.9
    )


@pytest.mark.row("M11")
def test_the_area_is_the_mean_risk_and_its_chance_that_of_shuffles(
    rng: np.random.Generator,
) -> None:
    for losses in (rng.random(120) < 0.06, rng.normal(size=120) ** 2):
        losses, sure = losses.astype(float), rng.random(120)
        found = confidence.aurc(sure, losses)
        assert found["aurc"] == pytest.approx(confidence.risk_coverage(sure, losses)[1].mean())
        best = float((np.sort(losses).cumsum() / np.linspace(1, 120, 120)).mean())
        assert found["excess"] == pytest.approx(found["aurc"] - best)
        shuffles = [confidence.aurc(sure, rng.permutation(losses)) for _ in range(2000)]
        assert np.mean([s["ratio"] for s in shuffles]) == pytest.approx(1, abs=0.03)
        assert np.std([s["ratio"] for s in shuffles]) == pytest.approx(found["spread"], rel=0.08)
        assert np.mean([s["p"] < 0.05 for s in shuffles]) == pytest.approx(0.05, abs=0.02)


@pytest.mark.row("M11")
def test_equal_confidences_have_no_order() -> None:
    found = confidence.aurc(np.full(50, 0.9), (np.arange(50) < 10).astype(float))
    assert found["ratio"] == pytest.approx(1) and found["p"] == 1.0


@pytest.mark.row("M11")
def test_the_conformal_quantile_is_an_order_statistic() -> None:
    assert conformal.quantile(np.arange(19.0), 0.1) == pytest.approx(
        17
    )  # the 18th of 19, ceil(20 * .9)
    with pytest.raises(ValueError, match="needs 9 or more"):
        conformal.quantile(np.arange(8.0), 0.1)


@pytest.mark.row("M11")
@having("multiclass", "regression")
def test_sets_and_intervals_cover_fresh_data_as_promised(
    kind: str, rng: np.random.Generator
) -> None:
    """The mean over many calibrations; with n rows it lies between 1 - alpha and 1 - alpha + 1 / (n
    + 1).
    """
    repeats, n, fresh = 400, 44, 100
    covered, surprising = [], 0
    for _ in range(repeats):
        if kind == "regression":
            raw = np.stack([np.zeros(n + fresh), rng.normal(size=n + fresh)], axis=1)
            label = rng.standard_t(3, n + fresh) * np.exp(raw[:, 1])
        else:
            probabilities = rng.dirichlet(np.ones(4), n + fresh)
            raw = np.log(probabilities)
            label = (probabilities.cumsum(axis=1) > rng.random((n + fresh, 1))).argmax(axis=1)
        parts = [(raw[:n], label[:n])] * 2
        rule = confidence.fit(kind, Rule(), *parts, LIMITS, 1.0)
        held = conformal.coverage(
            kind, kinds.of(kind).decide(raw[n:], rule), label[n:], n, LIMITS.alpha
        )
        covered.append(held["set_coverage"])
        surprising += held["coverage_p"] < 0.05
    error = 3 * np.std(covered) / np.sqrt(repeats)
    most = (
        1 - LIMITS.alpha + 1 / (n + 1) + (0.02 if kind == "multiclass" else 0)
    )  # the answered class is always in
    assert 1 - LIMITS.alpha - error <= np.mean(covered) <= most + error
    assert surprising / repeats <= stats.binom.ppf(0.999, repeats, 0.05) / repeats


@pytest.mark.row("M11")
def test_the_rule_abstains_where_validation_errs_too_often(rng: np.random.Generator) -> None:
    p = rng.random(4000) / 2 + 0.5
    raw = np.log(np.stack([1 - p, p], axis=1))
    label = (rng.random(4000) < p).astype(int)
    limits = LIMITS.model_copy(update={"target_error": 0.1})
    rule = confidence.fit("binary", Rule(), (raw, label), (raw, label), limits, 1.0)
    answers = kinds.of("binary").decide(raw, rule)
    assert (answers.label != label)[~answers.abstain].mean() == pytest.approx(0.1, abs=0.005)
    assert rule.abstain_below == pytest.approx(0.8, abs=0.04)  # above it .9 are right in the mean


def classifier(rng: np.random.Generator, shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits [540, 3] that are wrong on about 4 %, and label [540]; confidences as they should be,
    or useless.
    """
    margin = rng.gamma(2, 2.5, 540)
    label = rng.integers(0, 3, 540)
    wrong = rng.random(540) < 2 / (2 + np.exp(margin))
    said = np.where(wrong, (label + 1) % 3, label)
    shown = {"good": margin, "shuffled": rng.permutation(margin), "constant": np.full(540, 4.0)}[
        shape
    ]
    return np.eye(3)[said] * shown[:, None], label


@pytest.mark.row("M11")
@pytest.mark.parametrize(
    ("shape", "outcome"), [("good", "pass"), ("shuffled", "fail"), ("constant", "fail")]
)
def test_useless_confidences_are_refused_though_as_many_answers_are_right(
    shape: str, outcome: str, rng: np.random.Generator
) -> None:
    raw, label = classifier(rng, shape)
    assert (raw.argmax(axis=1) == label).mean() > 0.9
    rule = Rule(conformal_quantile=0.9)
    assert confidence.judge("multiclass", raw, label, rule, LIMITS, 1.0, 180).outcome == outcome


@pytest.mark.row("M11")
def test_too_few_errors_say_nothing_and_none_are_best() -> None:
    raw, label = np.stack([np.zeros(100), np.linspace(1, 3, 100)], axis=1), np.ones(100, int)
    assert confidence.judge("binary", raw, label, Rule(), LIMITS, 1.0, 50).outcome == "pass"
    label[40] = 0
    assert confidence.judge("binary", raw, label, Rule(), LIMITS, 1.0, 50).outcome == "cannot tell"

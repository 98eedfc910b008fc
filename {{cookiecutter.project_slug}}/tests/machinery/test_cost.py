import numpy as np
import pytest
import yaml
from harness import ROOT, module
from kinds import having

cost = module("evaluation.cost")
kinds, types = module("modeling.kinds"), module("types")
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluation"]
LIMITS = module("settings").Cost.model_validate(SHIPPED["cost"])
DEAR_MISS = np.array([[0.0, 1.0], [4.0, 0.0]])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def logits(probability: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.stack([1 - probability, probability], axis=1)))


@pytest.mark.row("M4")
def test_calibrated_probabilities_get_the_threshold_of_bayes(rng: np.random.Generator) -> None:
    p = rng.random(5000)
    label = (rng.random(5000) < p).astype(int)
    found = cost.fit("binary", DEAR_MISS.tolist(), logits(p), label, 1.0)
    assert found["threshold"] == pytest.approx(0.2, abs=0.01) and "shift" not in found
    # Equal costs: the more probable class.
    assert cost.fit("binary", None, logits(p), label, 1.0) == {"costs": None}


@pytest.mark.row("M4")
def test_validation_data_move_the_threshold_of_wrong_probabilities(
    rng: np.random.Generator,
) -> None:
    p = rng.random(5000)
    label = (rng.random(5000) < np.sqrt(p)).astype(int)  # the true one is .2 where .04 is said
    found = cost.threshold(p, label, DEAR_MISS)
    costs = [np.where(label == 1, 4 * (p < t), p >= t).mean() for t in (found, 0.2, 0.04)]
    assert found < 0.1 and costs[0] < costs[1] and costs[0] < costs[2] * 1.05


@pytest.mark.row("M4")
def test_of_equally_cheap_thresholds_the_one_nearest_to_bayes_is_taken() -> None:
    p, label = np.array([0.01, 0.02, 0.6, 0.6, 0.9]), np.array([0, 0, 1, 1, 1])
    assert cost.threshold(p, label, DEAR_MISS) == pytest.approx(
        0.2
    )  # between .02 and .6 all are free
    assert cost.threshold(p, label, DEAR_MISS[::-1, ::-1].T * [[1, 4], [1, 1]]) == pytest.approx(
        0.5, abs=0.31
    )


@pytest.mark.row("M4")
def test_costs_of_answers_are_looked_up_and_set_against_the_cheapest_constant_answer() -> None:
    costs = [[0, 2, 5], [1, 0, 5], [9, 9, 0]]
    label = np.array([0, 0, 1, 2])
    raw = 9.0 * np.eye(3)[[0, 1, 1, 2]]
    answers = kinds.of("multiclass").decide(raw, types.Rule())
    assert cost.row_costs("multiclass", costs, answers, label).tolist() == [0, 2, 0, 0]
    assert cost.constant_cost("multiclass", costs, label, 3) == (0, 2.5)
    assert cost.judge("multiclass", costs, answers, label, LIMITS).number == pytest.approx(0.2)


@pytest.mark.row("M4")
@pytest.mark.parametrize(("skill", "outcome"), [(1.0, "pass"), (0.0, "fail")])
@having("binary", "regression")
def test_answers_that_save_no_cost_are_refused(
    kind: str, skill: float, outcome: str, rng: np.random.Generator
) -> None:
    signal = rng.normal(size=300)
    label = signal if kind == "regression" else (signal > 0).astype(int)
    guess = skill * signal + 0.3 * rng.normal(size=300)
    raw = guess[:, None] if kind == "regression" else np.stack([-guess, guess], axis=1)
    answers = kinds.of(kind).decide(raw, types.Rule())
    assert cost.judge(kind, None, answers, label, LIMITS).outcome == outcome


@pytest.mark.row("M4")
def test_test_data_with_one_label_say_nothing() -> None:
    answers = kinds.of("binary").decide(np.eye(2), types.Rule())
    assert cost.judge("binary", None, answers, np.array([1, 1]), LIMITS).outcome == "cannot tell"

import numpy as np
import pytest
import torch
from harness import module
from sklearn import metrics as reference

predictions, losses, schedules, metrics = (
    module(f"modeling.{n}") for n in ("predictions", "losses", "schedules", "metrics")
)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 300)
    return probabilities, rng.integers(0, 4, 300)


@pytest.mark.row("M3")
def test_metrics_agree_with_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, label = scored
    said, found = probabilities.argmax(axis=1), metrics.evaluate("multiclass", *scored)
    wanted = {
        "accuracy": reference.accuracy_score(label, said),
        "f1_macro": reference.f1_score(label, said, average="macro"),
        "precision_macro": reference.precision_score(label, said, average="macro"),
        "recall_micro": reference.recall_score(label, said, average="micro"),
        "cohen_kappa": reference.cohen_kappa_score(label, said),
        "jaccard": reference.jaccard_score(label, said, average="macro"),
        "log_loss": reference.log_loss(label, probabilities),
    }
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, abs=1e-5)
    assert (metrics.confusion(*scored) == reference.confusion_matrix(label, said)).all()


def test_softmax_temperature_and_stability() -> None:
    logits = np.array([[1000.0, 1000.0], [0.0, np.log(3)]])
    assert predictions.softmax(logits) == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert predictions.softmax(logits, 2.0)[1, 1] == pytest.approx(3**0.5 / (1 + 3**0.5))


def test_decisions_abstain_and_hold_the_prediction_in_the_set() -> None:
    logits = np.log(np.array([[0.5, 0.4, 0.1], [0.9, 0.06, 0.04]]))
    found = predictions.decide(logits, 1.0, abstain_below=0.6, conformal_quantile=0.65)
    assert found.label.tolist() == [0, 0] and found.abstain.tolist() == [True, False]
    assert found.sets.tolist() == [[True, True, False], [True, False, False]]
    assert predictions.decide(logits, 1.0, 0, conformal_quantile=0.01).sets.sum(axis=1).tolist() == [1, 1]


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, label = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
    plain = torch.nn.functional.cross_entropy(logits, label)
    assert losses.FocalLoss(0.0)(logits, label) == pytest.approx(plain.item())
    assert losses.FocalLoss(2.0)(logits, label) < plain


def test_cosine_schedule_rises_then_falls_to_zero() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = schedules.cosine_with_warmup(optimizer, total_steps=100, warmup=0.1), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(2.0) and rates.index(max(rates)) in (9, 10)
    assert rates[55] == pytest.approx(1.0) and rates[-1] < 0.001

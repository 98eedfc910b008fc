import numpy as np
import pytest
import torch
from harness import module
from kinds import KINDS, having
from sklearn import metrics as reference

types, kinds, losses, schedules = (
    module(n) for n in ("types", "modeling.kinds", "modeling.losses", "modeling.schedules")
)
softmax = module("modeling.kinds.classes").softmax


def classes(k: int, **rule: object):  # type: ignore[no-untyped-def]
    """Answers on 300 random rows, with their labels."""
    rng = np.random.default_rng(0)
    raw = np.log(rng.dirichlet(np.ones(k), 300))
    kind = "binary" if k == 2 else "multiclass"
    return kinds.of(kind).decide(raw, types.Rule(**rule)), rng.integers(0, k, 300)


@pytest.mark.row("M3")
def test_multiclass_metrics_agree_with_scikit_learn() -> None:
    answers, label = classes(4)
    said, found = answers.label, kinds.of("multiclass").metrics(answers, label)
    wanted = {
        "accuracy": reference.accuracy_score(label, said),
        "f1_macro": reference.f1_score(label, said, average="macro"),
        "precision_macro": reference.precision_score(label, said, average="macro"),
        "recall_micro": reference.recall_score(label, said, average="micro"),
        "cohen_kappa": reference.cohen_kappa_score(label, said),
        "jaccard": reference.jaccard_score(label, said, average="macro"),
        "log_loss": reference.log_loss(label, answers.probabilities),
    }
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, abs=1e-5)
    confusion = kinds.of("multiclass").confusion(answers, label)
    assert (confusion == reference.confusion_matrix(label, said)).all()


@pytest.mark.row("M3", "M4")
def test_binary_metrics_are_those_at_the_stored_threshold() -> None:
    answers, label = classes(2, threshold=0.3)
    said = (answers.probabilities[:, 1] >= 0.3).astype(int)
    found = kinds.of("binary").metrics(answers, label)
    tn, fp, fn, tp = reference.confusion_matrix(label, said).ravel()
    wanted = {
        "accuracy": reference.accuracy_score(label, said),
        "precision": reference.precision_score(label, said),
        "recall": reference.recall_score(label, said),
        "f1": reference.f1_score(label, said),
        "auroc": reference.roc_auc_score(label, answers.probabilities[:, 1]),
        "auprc": reference.average_precision_score(label, answers.probabilities[:, 1]),
        "tpr": tp / (tp + fn),
        "tnr": tn / (tn + fp),
        "fpr": fp / (fp + tn),
        "fnr": fn / (fn + tp),
        "log_loss": reference.log_loss(label, answers.probabilities),
    }
    assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.row("M1", "M3")
@having(*KINDS)
def test_settings_and_metrics_know_the_same_names(kind: str) -> None:
    settings = module("settings")
    k = {"multiclass": 4, "binary": 2, "regression": 1}[kind]
    raw = np.random.default_rng(2).random((50, k))
    answers = kinds.of(kind).decide(raw, types.Rule())
    found = kinds.of(kind).metrics(answers, np.arange(50) % max(k, 2))
    assert set(found) == set(settings.METRICS[kind])
    lower = {name for name in found if name in settings.LOWER_IS_BETTER}
    perfect = np.eye(k)[np.arange(50) % k] * 20 if k > 1 else raw
    label = np.arange(50) % k if k > 1 else raw[:, 0]
    best = kinds.of(kind).metrics(kinds.of(kind).decide(perfect, types.Rule()), label)
    assert {name for name in found if best[name] < found[name]} == lower


def test_softmax_temperature_and_stability() -> None:
    logits = np.array([[1000.0, 1000.0], [0.0, np.log(3)]])
    assert softmax(logits) == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert softmax(logits, 2.0)[1, 1] == pytest.approx(3**0.5 / (1 + 3**0.5))


def test_decisions_abstain_and_hold_the_answer_in_the_set() -> None:
    logits = np.log(np.array([[0.5, 0.4, 0.1], [0.9, 0.06, 0.04]]))
    rule = types.Rule(abstain_below=0.6, conformal_quantile=0.65)
    found = kinds.of("multiclass").decide(logits, rule)
    assert found.label.tolist() == [0, 0] and found.abstain.tolist() == [True, False]
    assert found.sets.tolist() == [[True, True, False], [True, False, False]]
    strict = types.Rule(conformal_quantile=0.01)
    assert kinds.of("multiclass").decide(logits, strict).sets.sum(axis=1).tolist() == [1, 1]
    assert not kinds.of("multiclass").decide(logits, types.Rule()).abstain.any()


@pytest.mark.row("M4")
def test_costs_move_the_answer_to_the_class_of_least_expected_cost() -> None:
    logits = np.log(np.array([[0.6, 0.3, 0.1]]))
    costs = [[0, 1, 1], [9, 0, 1], [1, 1, 0]]  # taking the second class for the first is dear
    assert kinds.of("multiclass").decide(logits, types.Rule()).label.tolist() == [0]
    assert kinds.of("multiclass").decide(logits, types.Rule(costs=costs)).label.tolist() == [1]
    two = np.log(np.array([[0.8, 0.2]]))
    assert kinds.of("binary").decide(two, types.Rule(threshold=0.2)).label.tolist() == [1]
    assert kinds.of("binary").decide(two, types.Rule(threshold=0.21)).label.tolist() == [0]


def test_row_losses_are_one_minus_the_score() -> None:
    answers, label = classes(3)
    assert 1 - kinds.of("multiclass").row_losses(answers, label, 1.0).mean() == pytest.approx(
        reference.accuracy_score(label, answers.label)
    )


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, label = (
        torch.randn(8, 3, generator=torch.Generator().manual_seed(1)),
        torch.arange(8) % 3,
    )
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
    assert (
        rates[0] == pytest.approx(0.2)
        and max(rates) == pytest.approx(2.0)
        and rates.index(max(rates)) in (9, 10)
    )
    assert rates[55] == pytest.approx(1.0) and rates[-1] < 0.001


def test_a_class_without_rows_has_an_output_in_every_baseline() -> None:
    baselines = module("modeling.baselines")
    inputs, label = {"x": np.arange(40, dtype=np.float32)[:, None]}, np.arange(40) // 20
    rows, labels = baselines.with_all_classes(inputs, label, ["a", "b", "c"])
    assert len(rows["x"]) == 41 and labels[-1] == 2 and rows["x"].dtype == np.float32
    same = baselines.with_all_classes(inputs, label, ["a", "b"])
    assert same[0] is inputs and same[1] is label

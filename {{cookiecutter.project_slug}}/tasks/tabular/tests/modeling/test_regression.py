"""Answers on a scale."""

import inspect
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from harness import ROOT, Project, module
from sklearn import metrics as reference

types, kinds, validate = (module(name) for name in ("types", "modeling.kinds", "data.validate"))


@pytest.mark.row("M3")
def test_regression_metrics_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    label, value = rng.gamma(3, 20, (2, 200))
    answers = kinds.of("regression").decide(value[:, None], types.Rule())
    found = kinds.of("regression").metrics(answers, label.astype(np.float32))
    error = np.abs(value - label)
    wanted = {
        "mse": reference.mean_squared_error(label, value),
        "rmse": reference.root_mean_squared_error(label, value),
        "mae": reference.mean_absolute_error(label, value),
        "r2": reference.r2_score(label, value),
        "msle": reference.mean_squared_log_error(label, value),
        "mape": reference.mean_absolute_percentage_error(label, value),
        "huber": np.where(error < 1, 0.5 * error**2, error - 0.5).mean(),
    }
    assert found == pytest.approx(wanted, rel=1e-4)
    below = kinds.of("regression").decide(value[:, None] - 500, types.Rule())
    assert "msle" not in kinds.of("regression").metrics(below, label)


def test_estimates_have_intervals_as_wide_as_their_deviation_says() -> None:
    raw = np.array([[10.0, np.log(2.0)], [20.0, np.log(4.0)]])
    rule = types.Rule(temperature=1.5, conformal_quantile=2.0, shift=1.0, abstain_below=-5.0)
    found = kinds.of("regression").decide(raw, rule)
    assert found.deviation.tolist() == pytest.approx(
        [3, 6]
    ) and found.value.tolist() == pytest.approx([13, 26])
    assert found.intervals == pytest.approx(np.array([[4.0, 16.0], [8.0, 32.0]]))
    assert found.abstain.tolist() == [False, True]
    assert kinds.of("regression").decide(raw[:, :1], rule).deviation.tolist() == [1.5, 1.5]


def test_row_losses_of_values_are_one_minus_the_score() -> None:
    rng = np.random.default_rng(3)
    label, value = rng.normal(size=(2, 500))
    answers = kinds.of("regression").decide(value[:, None], types.Rule())
    found = 1 - kinds.of("regression").row_losses(answers, label, label.std()).mean()
    assert found == pytest.approx(reference.r2_score(label, value))


@pytest.mark.row("D5")
@pytest.mark.parametrize(
    ("value", "good"),
    [(1.0, True), (None, True), (np.inf, False), (-1.0, False), (501.0, False), ("x", False)],
)
def test_a_label_that_is_a_value_is_finite_and_in_its_range(
    value: object, good: bool, project: Project
) -> None:
    data = project.settings().data
    limits = data.checks.model_copy(update={"label_range": (0.0, 500.0)})
    rule = kinds.of("regression").label_column(data.model_copy(update={"checks": limits}))
    rules = validate.pa.DataFrameSchema({"label": rule})
    assert validate.failures(rules, pd.DataFrame({"label": [3.0, value]})).empty == good


def interface(kind: ModuleType) -> dict[str, list[str]]:
    """What a kind's module gives to the stages: constants, and functions with their parameters."""
    functions = dict(inspect.getmembers(kind, inspect.isfunction))
    return {name: list(inspect.signature(f).parameters) for name, f in functions.items()} | {
        name: [] for name in vars(kind) if name.isupper() and name != "TYPE_CHECKING"
    }


def test_every_kind_gives_the_same_functions() -> None:
    classes, values = (interface(kinds.of(kind)) for kind in ("binary", "regression"))
    of_one = {"softmax", "log_loss", "replace", "_binary_metrics", "finite"}
    own = of_one | {"names_on_axis", "MANY"}  # which are imported
    assert {k: v for k, v in classes.items() if k not in own} == {
        k: v for k, v in values.items() if k not in own
    }


@pytest.mark.row("T6")
def test_losses_find_value_and_deviation_and_refuse_classes() -> None:
    losses, build = module("modeling.losses_of_values"), module("modeling.losses").build_loss
    for name, pull in (("huber", -1), ("gaussian", -100)):
        component = yaml.safe_load((ROOT / f"configs/loss/{name}.yaml").read_bytes())
        loss = build(component, "regression", 2)
        with pytest.raises(ValueError, match=r"no loss for kind binary \(it takes values"):
            build(component, "binary", 2)
        torch.manual_seed(0)
        label, raw = 3 + 0.5 * torch.randn(4000), torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([raw], lr=0.05)
        for _ in range(400):
            optimizer.zero_grad()
            loss(raw.expand(4000, 2), label).backward()
            optimizer.step()
        assert raw[0].item() == pytest.approx(3, abs=0.05)
        assert raw[1].exp().item() == pytest.approx(0.5, abs=0.05)
        one = torch.zeros(1, 2, requires_grad=True)  # of Huber an outlier pulls no harder
        (gradient,) = torch.autograd.grad(loss(one, torch.tensor([100.0])), one)
        assert float(gradient[0, 0]) == pytest.approx(pull)
    assert isinstance(module("modeling.losses").default("regression"), losses.HuberWithDeviation)


class Wide(torch.nn.Module):
    """As many raw outputs as it is told."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, : self.size], x


def test_values_have_one_raw_output_or_two(project: Project) -> None:
    settings, check = project.settings(), module("modeling.module").check_network
    rows = {"x": np.zeros((2, 8), np.float32)}
    for size in (1, 2):
        check(settings, Wide(size), rows)
    with pytest.raises(ValueError, match=r"\[2, 1\] or \[2, 2\] and .*one tensor \[2, 3\]"):
        check(settings, Wide(3), rows)

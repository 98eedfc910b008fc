from typing import Any

import numpy as np
import pytest
import torch
from harness import module
from torch import Tensor, nn

attribution, candidates = (
    module(name) for name in ("evaluation.attribution", "modeling.candidates")
)
WEIGHTS = {"a": [2.0, -1.0, 0.5], "b": [3.0, 0.0]}
GROUPS = (["first", "second", "third"], {"a": np.array([0, 1, 1]), "b": np.array([2, 0])})


class Linear(nn.Module):
    """Two outputs: the weighted sum of both inputs, and its negative."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        total = a @ torch.tensor(WEIGHTS["a"]) + b @ torch.tensor(WEIGHTS["b"])
        return torch.stack([total, -total], dim=1), a


class Trees:
    """The same sum in the shape of a scikit-learn regressor: a product where `product` is set."""

    def __init__(self, product: bool = False) -> None:
        self.product = product

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        return np.asarray(
            matrix[:, 0] * matrix[:, 3]
            if self.product
            else matrix @ np.array(WEIGHTS["a"] + WEIGHTS["b"])
        )


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "a": rng.normal(size=(700, 3)).astype(np.float32),
        "b": rng.normal(size=(700, 2)).astype(np.float32),
    }


@pytest.fixture
def target() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 2, 700)


@pytest.mark.row("M5")
def test_integrated_gradients_of_a_linear_model_are_its_weights_times_the_distance(
    inputs: dict[str, Any], target: np.ndarray
) -> None:
    base = {name: np.ones_like(values[:1]) for name, values in inputs.items()}
    found = attribution.attribute(
        candidates.NetworkCandidate(Linear()), inputs, target, base, GROUPS
    )
    sign = np.where(target == 0, 2, -2)[:, None]  # odds of outputs (s, -s) are 2 s, or -2 s
    for name, values in found.values.items():
        np.testing.assert_allclose(
            values, sign * np.array(WEIGHTS[name]) * (inputs[name] - base[name]), atol=1e-5
        )
    assert np.abs(found.gap).max() < 1e-4
    np.testing.assert_allclose(
        found.by_feature[:, 1], found.values["a"][:, 1:].sum(axis=1), atol=1e-6
    )
    np.testing.assert_allclose(
        found.by_feature[:, 0], found.values["a"][:, 0] + found.values["b"][:, 1], atol=1e-6
    )


class Cubic(nn.Module):
    """The sum of the cubes as a value, beside a deviation that must not matter."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        total = (a**3).sum(dim=1) + (b**3).sum(dim=1)
        return torch.stack([total, 5 * total], dim=1), a


@pytest.mark.row("M5")
def test_integrated_gradients_add_up_where_the_model_is_curved(inputs: dict[str, Any]) -> None:
    zero = {name: np.zeros_like(values[:1]) for name, values in inputs.items()}
    found = attribution.attribute(candidates.NetworkCandidate(Cubic()), inputs, None, zero, GROUPS)
    np.testing.assert_allclose(found.values["a"], inputs["a"] ** 3, rtol=1e-3, atol=1e-5)
    assert np.abs(found.gap).max() < 1e-3 and found.record()["unexplained"] < 1e-4


@pytest.mark.row("M5")
def test_ablation_gives_a_linear_model_the_same_and_needs_no_gradients(
    inputs: dict[str, Any],
) -> None:
    base = {name: np.ones_like(values[:1]) for name, values in inputs.items()}
    found = attribution.attribute(
        candidates.ClassicalCandidate(Trees()), inputs, None, base, GROUPS
    )
    parts = {name: np.array(WEIGHTS[name]) * (inputs[name] - base[name]) for name in inputs}
    np.testing.assert_allclose(found.by_feature, attribution.by_feature(parts, GROUPS), atol=1e-4)
    assert found.method == "feature ablation" and np.abs(found.gap).max() < 1e-4


@pytest.mark.row("M5")
def test_the_gap_shows_what_single_features_do_not_explain(inputs: dict[str, Any]) -> None:
    zero = {name: np.zeros_like(values[:1]) for name, values in inputs.items()}
    model = candidates.ClassicalCandidate(Trees(product=True))
    found = attribution.attribute(model, inputs, None, zero, GROUPS)
    product = (
        inputs["a"][:, 0] * inputs["b"][:, 0]
    )  # either factor taken away takes all: counted twice
    np.testing.assert_allclose(found.gap, -product, atol=1e-5)
    assert found.record()["unexplained"] == pytest.approx(1)


@pytest.mark.row("M5")
def test_odds_are_those_of_the_probabilities() -> None:
    raw = torch.randn((5, 4), generator=torch.Generator().manual_seed(0))
    p = raw.softmax(dim=1)
    torch.testing.assert_close(attribution.log_odds(raw), (p / (1 - p)).log())
    torch.testing.assert_close(attribution.log_odds(p.log()), (p / (1 - p)).log())


@pytest.mark.row("M5")
def test_importance_is_the_mean_size_over_rows_and_sorted() -> None:
    by_feature = np.array([[1.0, -4.0, 0.0], [-1.0, 2.0, 0.0]])
    found = attribution.Attributions("", GROUPS[0], {}, by_feature, np.zeros(2))
    assert list(found.importance().items()) == [("second", 3.0), ("first", 1.0), ("third", 0.0)]

from typing import Any

import numpy as np
import pytest
import torch
from harness import module

networks = module("task.networks")
NUMBERS, CATEGORIES = {"a": [0, 10], "b": [-1, 1]}, {"c": ["x", "y", "z"]}
rng = np.random.default_rng(1)
INPUTS = {
    "numeric": rng.normal(5, 2, (60, 2)).astype(np.float32),
    "missing": np.zeros((60, 2), np.float32),
    "categorical": np.eye(3, dtype=np.float32)[rng.integers(0, 3, 60)],
}


def mlp(outputs: int, kind: str, **features: Any) -> Any:
    return networks.Mlp(outputs, kind, features, width=8, depth=2, dropout=0.0).eval()


def tensors(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(INPUTS[name]) for name in names}


@pytest.mark.parametrize(
    ("features", "names"),
    [
        ({"numeric": NUMBERS, "categorical": CATEGORIES}, ("numeric", "missing", "categorical")),
        ({"numeric": NUMBERS}, ("numeric", "missing")),
        ({"categorical": CATEGORIES}, ("categorical",)),
    ],
)
def test_a_table_has_the_inputs_that_it_has_and_every_one_gets_a_gradient(
    features: Any, names: Any
) -> None:
    given = {name: values.requires_grad_() for name, values in tensors(*names).items()}
    raw, embedding = mlp(3, "multiclass", **features)(**given)
    assert raw.shape == (60, 3) and embedding.shape == (60, 8)
    raw.sum().backward()
    assert all(values.grad is not None and values.grad.abs().sum() > 0 for values in given.values())


def test_values_come_in_the_labels_unit_before_any_training() -> None:
    made = mlp(2, "regression", numeric=NUMBERS, categorical=CATEGORIES)
    label = np.random.default_rng(2).normal(1000, 50, 60)
    made.adapt(INPUTS, label)
    raw, _ = made(**tensors(*INPUTS))
    assert (raw[:, 0] - label.mean()).abs().max() < 3 * label.std()
    assert (raw[:, 1] - np.log(label.std())).abs().max() < 3


def test_a_missing_number_counts_nothing_and_is_no_part_of_the_mean() -> None:
    made, gaps = (
        mlp(3, "multiclass", numeric=NUMBERS, optional=["b"]),
        np.zeros((60, 2), np.float32),
    )
    gaps[:30, 1] = 1
    numeric = np.where(gaps > 0, 0, INPUTS["numeric"]).astype(np.float32)
    made.adapt({"numeric": numeric, "missing": gaps}, np.zeros(60, np.int64))
    assert made.mean[1] == pytest.approx(INPUTS["numeric"][30:, 1].mean(), rel=1e-5)
    one, other = (made(torch.full((1, 2), value), torch.ones(1, 2))[0] for value in (0.0, 1000.0))
    assert torch.equal(one, other)


def test_one_slip_of_the_point_counts_no_more_than_three_deviations() -> None:
    made = mlp(3, "multiclass", numeric=NUMBERS)
    made.adapt(INPUTS, np.zeros(60, np.int64))
    far, farther = (made(torch.full((1, 2), value), torch.zeros(1, 2))[0] for value in (100.0, 1e6))
    assert torch.equal(far, farther)


@pytest.mark.parametrize("kind", ["regression", "binary", "multiclass"])
@pytest.mark.row("M2")
def test_the_rule_finds_the_telling_column_and_answers_its_bands(kind: str) -> None:
    inputs = {
        **INPUTS,
        "numeric": np.random.default_rng(3).normal(0, 1, (60, 2)).astype(np.float32),
    }
    order = inputs["numeric"][:, 1].argsort().argsort() // 15  # four bands of 15 rows
    label = {
        "regression": 10.0 * order,
        "binary": (order > 1).astype(np.int64),
        "multiclass": order,
    }[kind]
    rule = module("task.baselines").Heuristic(kind).fit(inputs, label)
    raw = rule.predict(inputs)
    if kind == "regression":
        assert (
            raw.shape == (60, 1) and np.abs(raw[:, 0] - label).max() < 1.5
        )  # the mean joins each band once
    else:
        assert (raw.argmax(axis=1) == label).all() and np.exp(raw).sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_trees_are_stored_without_code_and_cost_what_their_depths_say(kind: str) -> None:
    import skops.io

    trees = module("task.baselines")
    x = rng.normal(size=(200, 3)).astype(np.float32)
    label = x[:, 0] if kind == "regression" else (x[:, 0] > 0).astype(np.int64)
    model = trees.classical(kind, 1).fit(x, label)
    stored = skops.io.dumps(model)
    assert set(skops.io.get_untrusted_types(data=stored)) <= set(trees.TRUSTED)
    assert np.array_equal(
        skops.io.loads(stored, trusted=trees.TRUSTED).predict(x), model.predict(x)
    )
    assert 100 < trees.operations(model) <= 400

from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from harness import ROOT, module

behaviour = module("task.behaviour")
features = module("task.features")


def composed(*overrides: str) -> Any:
    return (
        module("settings")
        .parse(yaml.safe_load(module("pipeline").compose([*overrides], ROOT / "configs")))
        .data
    )


def examples(data: Any) -> Any:
    rows = module("task.source").bundled(data.name, 0.02)
    inputs = features.encode(rows, features.Features.model_validate(data.features))
    label = (
        rows["label"].to_numpy()
        if not data.labels
        else rows["label"].map(data.labels.index).to_numpy()
    )
    return module("data.datamodule").Examples(inputs, label, rows)


@pytest.mark.row("M7")
@pytest.mark.parametrize("choice", ["diabetes", "breast_cancer"])
def test_perturbations_grow_with_severity_and_stay_what_the_server_takes(choice: str) -> None:
    data = composed(f"data={choice}")
    of, found, inputs = (
        features.Features.model_validate(data.features),
        behaviour.declare(data),
        examples(data).inputs,
    )
    assert len(found.perturbations) >= 6
    for name, change in found.perturbations.items():
        moved = [change(inputs, severity, np.random.default_rng(1)) for severity in (1, 5)]
        sizes = [sum(np.abs(m[k] - inputs[k]).mean() for k in inputs) for m in moved]
        assert 0 < sizes[0] < sizes[1], name
        for item in features.inputs_to_instances(moved[1], of):
            features.check_instance(features.Instance.model_validate(item), of)
        assert all(
            (m["numeric"][m["missing"] > 0] == 0).all() and m["numeric"].dtype == np.float32
            for m in moved
        )
        if "categorical" in inputs:
            assert (moved[1]["categorical"].sum(axis=1) == inputs["categorical"].sum(axis=1)).all()


@pytest.mark.row("M8", "M9")
def test_a_demand_changes_its_own_column_alone_and_as_declared() -> None:
    data = composed("data=diabetes")
    found, inputs = behaviour.declare(data), examples(data).inputs
    swapped = found.invariances["sex swapped"](inputs)
    assert (swapped["categorical"] == inputs["categorical"][:, ::-1]).all() and swapped[
        "numeric"
    ] is inputs["numeric"]
    direction, column = (
        found.directions["bmi higher by 5"],
        list(data.features["numeric"]).index("bmi"),
    )
    difference = (
        direction.more(inputs, inputs)["numeric"] - direction.less(inputs, inputs)["numeric"]
    )
    assert (difference[:, column] > 0).all() and not np.delete(difference, column, axis=1).any()
    assert (
        behaviour.declare(composed("data=breast_cancer"))
        .directions["worst_radius higher by 4"]
        .label
        == "malignant"
    )


@pytest.mark.row("M12")
def test_bands_and_categories_cut_every_row_once() -> None:
    data = composed("data=diabetes")
    masks = behaviour.declare(data).slices(examples(data))
    for name in ("age", "bmi", "sex"):
        assert (
            sum(mask.astype(int) for key, mask in masks.items() if key.startswith(f"{name} ")) == 1
        ).all()
    assert 0 < masks["a value missing"].sum() < 100


def test_other_data_have_perturbations_and_columns_and_no_foreign_demands() -> None:
    table = {"numeric": {"a": [0, 10]}, "categorical": {"c": ["x", "y"]}}
    data = composed("data=diabetes").model_copy(update={"name": "mine", "features": table})
    found = behaviour.declare(data)
    assert (
        found.perturbations
        and not found.directions
        and list(found.invariances) == ["numbers rounded to a hundredth of their range"]
    )
    rows = pd.DataFrame({"a": [1.0, 2.0], "c": ["x", "y"]})
    made = module("data.datamodule").Examples({}, np.zeros(2), rows)
    assert set(found.columns(made)) == {"a", "c"} and set(found.slices(made)) == {"c x", "c y"}


def test_a_demand_on_a_column_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(behaviour.EXPECTED, "diabetes", behaviour.Expected(rising={"height": 1}))
    with pytest.raises(ValueError, match=r"do not exist: \['height'\]"):
        behaviour.declare(composed("data=diabetes"))

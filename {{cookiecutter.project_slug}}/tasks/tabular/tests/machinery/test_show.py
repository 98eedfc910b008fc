from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import module
from matplotlib.figure import Figure

show, kinds, types = module("task.show"), module("modeling.kinds"), module("types")
Examples, encode = module("data.datamodule").Examples, module("task.features").encode
OF = module("task.features").Features(
    numeric={"size": (0, 10), "age": (0, 99)},
    categorical={"colour": ["red", "blue"]},
    optional=["age", "colour"],
)


@pytest.fixture
def examples() -> Any:
    rng, n = np.random.default_rng(1), 400
    rows = pd.DataFrame(
        {
            "size": rng.uniform(0, 10, n),
            "age": rng.uniform(0, 99, n),
            "colour": ["red", "blue"] * (n // 2),
        }
    )
    rows.loc[::10, "age"] = np.nan
    rows["label"] = (
        3 * rows["size"] + 8 * (rows["colour"] == "blue") + 7 * rows["age"].isna()
    )  # no age says anything
    return Examples(encode(rows, OF), rows["label"].to_numpy(np.float32), rows)


def answers(inputs: dict[str, np.ndarray]) -> Any:
    value = (
        3 * inputs["numeric"][:, :1]
        + 8 * inputs["categorical"][:, 1:]
        + 7 * inputs["missing"][:, 1:]
    )
    return kinds.of("regression").decide(value, types.Rule())


def outputs(inputs: dict[str, np.ndarray]) -> Any:
    return kinds.of("regression").outputs(answers(inputs))


def losses(inputs: dict[str, np.ndarray], label: np.ndarray) -> Any:
    return kinds.of("regression").row_losses(answers(inputs), label, float(label.std()))


@pytest.mark.row("M5", "E5")
def test_all_elements_of_a_column_count_as_one_feature(examples: Any) -> None:
    names, members = show.features(OF)
    assert names == ["size", "age", "colour"]
    assert {k: v.tolist() for k, v in members.items()} == {
        "numeric": [0, 1],
        "missing": [0, 1],
        "categorical": [2, 2],
    }
    assert {k: v.shape[1:] for k, v in examples.inputs.items()} == {
        k: v.shape for k, v in members.items()
    }


@pytest.mark.row("M5")
def test_the_reference_is_the_mean_of_what_is_there(examples: Any) -> None:
    found = show.reference(examples.inputs, OF)
    assert found["numeric"][0] + OF.centre == pytest.approx(
        examples.rows[["size", "age"]].mean().to_numpy(), rel=1e-5
    )
    assert found["missing"].max() == 0 and found["categorical"].tolist() == [[0.5, 0.5]]


@pytest.mark.row("E5")
def test_shuffling_a_column_costs_twice_what_it_explains(examples: Any) -> None:
    rows, label = examples.rows[OF.names], examples.label
    falls = show.permutation_importance(rows, lambda rows: losses(encode(rows, OF), label))
    # Shuffled, rows and answers vary by it independently: numbers, missing ages (a tenth), halves.
    variances = [np.var(3 * rows["size"]), 49 * 0.1 * 0.9, 64 * 0.5 * 0.5]
    assert falls.tolist() == pytest.approx(2 * np.array(variances) / np.var(label), rel=0.15)


@pytest.mark.row("E5")
def test_partial_dependence_is_the_model_where_columns_do_not_interact(examples: Any) -> None:
    rows = examples.rows[OF.names]
    sizes, ages, colours = (
        show.partial_dependence(rows, name, outputs, OF)[0] for name in OF.names
    )
    assert len(sizes) == show.POINTS
    assert sizes.to_numpy() == pytest.approx(
        3 * (sizes.index.to_numpy() - OF.centre[0]) + 4.7, rel=1e-4
    )
    assert colours["blue"] - colours["red"] == pytest.approx(8, rel=1e-4)
    # With an age, none is missing.
    assert ages.to_numpy() == pytest.approx(
        (3 * (rows["size"] - OF.centre[0])).mean() + 4, rel=1e-4
    )


@pytest.mark.row("E5")
def test_the_plots_and_the_first_rows_are_drawn(examples: Any, tmp_path: Any) -> None:
    drawers = show.column_plots(examples, outputs, losses, OF)
    files = module("pages").draw_all(drawers, tmp_path)
    assert list(files) == ["permutation importance", "partial dependence"]
    assert show.head(examples.rows, OF).columns.tolist() == ["size", "age", "colour", "label"]


@pytest.mark.row("M8")
def test_a_changed_row_shows_the_columns_that_changed(examples: Any) -> None:
    axes = Figure().subplots()
    after = {**examples.inputs, "categorical": examples.inputs["categorical"][:, ::-1]}
    show.example(axes, after, 0, OF, examples.inputs)
    assert axes.texts[0].get_text() == "colour: red → blue"
    axes = Figure().subplots()
    show.example(axes, examples.inputs, 0, OF)
    assert "age: missing" in axes.texts[0].get_text()

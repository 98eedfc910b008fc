"""How the report shows tables: a row, what changed in it, what made the model answer so, and what
columns do (E5).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..types import Examples, Floats, Inputs
from .features import Features, inputs_to_instances

COLUMNS, HEIGHT = 2, 1.35  # examples beside each other in a figure, and inches of each
LINES = 8  # of an example
ROWS, REPEATS, POINTS = 1000, 5, 20  # rows of E5; shuffles of a column; values of a column
RED, BLUE = "#dc2626", "#2563eb"


def features(of: Features) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """The columns' names, and the number of the column that each element of an input belongs to."""
    numeric, numbers = np.arange(len(of.numeric)), {}
    if of.numeric:
        numbers = {"numeric": numeric, "missing": numeric}
    if of.categorical:
        sizes = [len(values) for values in of.categorical.values()]
        numbers["categorical"] = np.repeat(len(numeric) + np.arange(len(sizes)), sizes)
    return of.names, numbers


def reference(inputs: Inputs, of: Features) -> Inputs:
    """The usual row [1, ...], which attributions compare with: mean of what is there, shares of the
    categories.
    """
    mean = {name: values.mean(axis=0, keepdims=True) for name, values in inputs.items()}
    if of.numeric:  # a missing number counts 0 in the sum
        mean["numeric"] = mean["numeric"] / np.maximum(1 - mean["missing"], 1e-6)
        mean["missing"] = np.zeros_like(mean["missing"])
    return {name: values.astype(np.float32) for name, values in mean.items()}


def row(inputs: Inputs, i: int, of: Features) -> dict[str, str]:
    """Example i as text by column."""
    instance = inputs_to_instances({name: v[i : i + 1] for name, v in inputs.items()}, of)[0]
    text = {}
    for name, value in instance.items():
        text[name] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return {name: "missing" if value == "None" else value for name, value in text.items()}


def example(axes: Any, inputs: Inputs, i: int, of: Features, before: Inputs | None = None) -> None:
    """Writes the columns of example i, or those alone in which it differs from what it was `before`
    a change.
    """
    after = row(inputs, i, of)
    lines = [f"{name}: {value}" for name, value in after.items()]
    if before is not None:
        old = row(before, i, of)
        lines = [f"{name}: {old[name]} → {v}" for name, v in after.items() if old[name] != v]
        lines = lines or ["differs too little to show"]
    if len(lines) > LINES:
        lines = [*lines[:LINES], f"… {len(lines) - LINES} columns more"]
    text = "\n".join(lines)
    axes.text(0.02, 0.98, text, va="top", fontsize=8, transform=axes.transAxes)
    axes.set_axis_off()


def explained(axes: Any, inputs: Inputs, i: int, added: Any, of: Features) -> None:
    """Bars of what the strongest columns of example i added: red spoke for the answer, or up; blue
    against, or down.
    """
    text, sizes = row(inputs, i, of), added.by_feature[i]
    bars(axes, [f"{name[:20]} = {text[name]}" for name in of.names], np.abs(sizes), sizes, 6)


def bars(
    axes: Any, names: list[str], order: Floats, sizes: Floats, count: int = 15
) -> NDArray[np.int64]:
    """So many bars, those of the largest `order` on top; returns their numbers."""
    chosen = np.argsort(order, kind="stable")[-count:]
    colours = [RED if size > 0 else BLUE for size in sizes[chosen]]
    axes.barh(range(len(chosen)), sizes[chosen], color=colours)
    axes.axvline(0, color="black", lw=0.6)
    axes.set_yticks(range(len(chosen)), [names[j] for j in chosen], fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    return chosen


def importance(figure: Any, added: Any, of: Features) -> None:
    """Bars of how much each column added over all rows, the largest on top."""
    sizes, axes = np.abs(added.by_feature).mean(axis=0), figure.subplots()
    bars(axes, of.names, sizes, sizes)
    axes.set_xlabel("mean size of what the column added")


def head(rows: Any, of: Features) -> Any:
    """The first raw rows as a table."""
    return rows[[*of.names, "label"]].head()


def column_plots(
    examples: Examples,
    outputs: Callable[[Inputs], Floats],
    losses: Callable[[Inputs, NDArray[Any]], Floats],
    of: Features,
    rng: Generator,
) -> dict[str, Callable[[Any], None]]:
    """Drawers by name: permutation importance of all columns, partial dependence of the four most
    important ones. `outputs` are the answers as numbers [n, outputs].
    """
    rows = rng.permutation(len(examples))[:ROWS]
    inputs = {name: values[rows] for name, values in examples.inputs.items()}
    falls = permutation_importance(inputs, examples.label[rows], losses, of, rng)
    chosen = np.argsort(-falls.mean(axis=1), kind="stable")[:4]
    curves = {of.names[j]: partial_dependence(inputs, outputs, of, int(j)) for j in chosen}
    return {
        "permutation importance": partial(draw_importance, falls=falls, names=of.names),
        "partial dependence": partial(draw_dependence, curves=curves),
    }


def permutation_importance(
    inputs: Inputs,
    label: NDArray[Any],
    losses: Callable[[Inputs, NDArray[Any]], Floats],
    of: Features,
    rng: Generator,
) -> Floats:
    """Fall of the score [columns, repeats] when a column alone is shuffled (Breiman 2001,
    doi:10.1023/A:1010933404324). What belongs to one column moves together.
    """
    names, members = features(of)
    clean, falls = losses(inputs, label).mean(), np.empty((len(names), REPEATS))
    for repeat in range(REPEATS):
        order = rng.permutation(len(label))
        for j in range(len(names)):
            shuffled = {k: np.where(members[k] == j, v[order], v) for k, v in inputs.items()}
            falls[j, repeat] = losses(shuffled, label).mean() - clean
    return falls


def partial_dependence(
    inputs: Inputs, outputs: Callable[[Inputs], Floats], of: Features, column: int
) -> tuple[list[Any], Floats]:
    """Values of a column, and the mean answer [values, outputs] when all rows have that value.

    Friedman 2001, doi:10.1214/aos/1013203451. Values are quantiles from 5 % to 95 %, or the
    categories.
    """
    name, means = of.names[column], []
    values: list[Any] = of.categorical.get(name, [])
    if not values:
        present = inputs["numeric"][inputs["missing"][:, column] == 0, column]
        levels = np.linspace(0.05, 0.95, POINTS)
        values = np.unique(np.quantile(present, levels, method="nearest")).tolist()
    for i, value in enumerate(values):
        changed = {k: v[:200].copy() for k, v in inputs.items()}
        if name in of.categorical:
            changed["categorical"][:, of.blocks[name]] = np.eye(len(values))[i]
        else:
            changed["numeric"][:, column], changed["missing"][:, column] = value, 0
        means.append(outputs(changed).mean(axis=0))
    return values, np.array(means)


def draw_importance(figure: Any, falls: Floats, names: list[str]) -> None:
    """Mean fall of the score by column, with the range over the repeats."""
    means, axes = falls.mean(axis=1), figure.subplots()
    rows = falls[bars(axes, names, means, means)]
    axes.hlines(range(len(rows)), rows.min(axis=1), rows.max(axis=1), color="black", lw=1)
    axes.set_xlabel("fall of the score when the column is shuffled")


def draw_dependence(figure: Any, curves: dict[str, tuple[list[Any], Floats]]) -> None:
    """A plot per column: its values against the mean answer."""
    cells = list(figure.subplots(2, 2, sharey=True).flat)
    for axes, (name, (values, output)) in zip(cells, curves.items(), strict=False):
        axes.plot(values, output, marker=".")  # text becomes the ticks
        axes.set_xlabel(name, fontsize=9)
    for axes in cells[len(curves) :]:
        axes.set_axis_off()
    figure.supylabel("mean answer", fontsize=9)

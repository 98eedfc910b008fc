"""How the report shows tables: a row, what changed in it, what made the model answer so, and what
columns do (E5).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from ..types import Answers, Estimates, Examples
from .features import Features, inputs_to_instances

Inputs = dict[str, NDArray[Any]]
COLUMNS, HEIGHT = 2, 1.35  # panels beside each other in a figure, and inches of each
SHOWN = 8  # columns that fit into a panel
ROWS, REPEATS, POINTS = (
    1000,
    5,
    20,
)  # of the charts: rows at most, shuffles per column, values of a column
RED, BLUE = "#dc2626", "#2563eb"


def features(of: Features) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """The columns' names, and the number of the column that each element of an input belongs to."""
    numeric, found = np.arange(len(of.numeric)), {}
    if of.numeric:
        found = {"numeric": numeric, "missing": numeric}
    if of.categorical:
        sizes = [len(values) for values in of.categorical.values()]
        found["categorical"] = np.repeat(len(numeric) + np.arange(len(sizes)), sizes)
    return of.names, found


def reference(inputs: Inputs, of: Features) -> Inputs:
    """The usual row [1, ...], which attributions compare with: mean of what is there, shares of the
    categories.
    """
    mean = {name: values.mean(axis=0, keepdims=True) for name, values in inputs.items()}
    if of.numeric:
        mean["numeric"] = mean["numeric"] / np.maximum(
            1 - mean["missing"], 1e-6
        )  # a missing one counts 0 in the sum
        mean["missing"] = np.zeros_like(mean["missing"])
    return {name: values.astype(np.float32) for name, values in mean.items()}


def row(inputs: Inputs, i: int, of: Features) -> dict[str, str]:
    """Example i as text by column."""
    found = inputs_to_instances({name: values[i : i + 1] for name, values in inputs.items()}, of)[0]
    return {
        k: "missing" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v)
        for k, v in found.items()
    }


def example(axes: Any, inputs: Inputs, i: int, of: Features, before: Inputs | None = None) -> None:
    """Writes the columns of example i, or those alone in which it differs from what it was `before`
    a change.
    """
    after, old = row(inputs, i, of), {} if before is None else row(before, i, of)
    lines = [f"{k}: {v}" for k, v in after.items()]
    if before is not None:
        lines = [f"{k}: {old[k]} → {v}" for k, v in after.items() if old[k] != v] or [
            "differs too little to show"
        ]
    more = [f"… {len(lines) - SHOWN} columns more"] if len(lines) > SHOWN else []
    axes.text(
        0.02, 0.98, "\n".join(lines[:SHOWN] + more), va="top", fontsize=8, transform=axes.transAxes
    )
    axes.set_axis_off()


def explained(
    axes: Any, inputs: Inputs, i: int, values: Inputs, by_feature: NDArray[Any], of: Features
) -> None:
    """Bars of what the strongest columns of example i added: red spoke for the answer, or up; blue
    against, or down.
    """
    text, added = row(inputs, i, of), by_feature[i]
    largest = np.argsort(-np.abs(added), kind="stable")[:6][::-1]
    bars(axes, [f"{of.names[j][:20]} = {text[of.names[j]]}" for j in largest], added[largest])


def bars(axes: Any, names: list[str], sizes: NDArray[Any]) -> None:
    axes.barh(range(len(names)), sizes, color=[RED if size > 0 else BLUE for size in sizes])
    axes.axvline(0, color="black", lw=0.6)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def importance(figure: Any, values: Inputs, by_feature: NDArray[Any], of: Features) -> None:
    """Bars of how much each column added over all rows, the largest on top."""
    sizes = np.abs(by_feature).mean(axis=0)
    order = np.argsort(sizes, kind="stable")[-15:]
    axes = figure.subplots()
    bars(axes, [of.names[j] for j in order], sizes[order])
    axes.set_xlabel("mean size of what the column added")


def head(rows: pd.DataFrame, of: Features) -> pd.DataFrame | None:
    """The first raw rows as a table."""
    return rows[[*of.names, "label"]].head()


def charts(
    examples: Examples,
    answers: Callable[[Inputs], Answers],
    losses: Callable[[Inputs, NDArray[Any]], NDArray[np.floating]],
    of: Features,
    rng: Generator,
) -> dict[str, Callable[[Any], None]]:
    """Drawers by name: permutation importance of all columns, partial dependence of the four most
    important ones.
    """
    rows = rng.permutation(len(examples))[:ROWS]
    inputs, label = (
        {name: values[rows] for name, values in examples.inputs.items()},
        examples.label[rows],
    )
    falls = permutation_importance(inputs, label, losses, of, rng)
    chosen = np.argsort(-falls.mean(axis=1), kind="stable")[:4]
    curves = {of.names[j]: partial_dependence(inputs, answers, of, int(j)) for j in chosen}
    return {
        "permutation importance": partial(draw_importance, falls=falls, names=of.names),
        "partial dependence": partial(draw_dependence, curves=curves),
    }


def permutation_importance(
    inputs: Inputs,
    label: NDArray[Any],
    losses: Callable[[Inputs, NDArray[Any]], NDArray[np.floating]],
    of: Features,
    rng: Generator,
) -> NDArray[np.floating]:
    """Fall of the score [columns, repeats] when a column alone is shuffled (Breiman 2001,
    doi:10.1023/A:1010933404324).

    What belongs to one column moves together. All repeats of a column are answered in one batch.
    """
    n, (names, members) = len(label), features(of)
    orders = np.concatenate([rng.permutation(n) for _ in range(REPEATS)])
    tiled = {name: np.tile(values, (REPEATS, 1)) for name, values in inputs.items()}
    clean, found = losses(inputs, label).mean(), np.empty((len(names), REPEATS))
    for j in range(len(names)):
        shuffled = {
            k: np.where(members[k] == j, inputs[k][orders], values) for k, values in tiled.items()
        }
        found[j] = (
            losses(shuffled, np.tile(label, REPEATS)).reshape(REPEATS, n).mean(axis=1) - clean
        )
    return found


def partial_dependence(
    inputs: Inputs, answers: Callable[[Inputs], Answers], of: Features, column: int
) -> tuple[list[Any], NDArray[np.floating]]:
    """Values of a column, and the mean answer [values, outputs] when all rows have that value.

    Friedman 2001, doi:10.1214/aos/1013203451. Values are quantiles from 5 % to 95 %, or the
    categories.
    """
    name, n = of.names[column], min(200, len(next(iter(inputs.values()))))
    few = {k: values[:n] for k, values in inputs.items()}
    if name in of.categorical:
        grid: list[Any] = of.categorical[name]
    else:
        known = inputs["numeric"][inputs["missing"][:, column] == 0, column]
        grid = np.unique(
            np.quantile(known, np.linspace(0.05, 0.95, POINTS), method="nearest")
        ).tolist()
    tiled = {k: np.tile(values, (len(grid), 1)) for k, values in few.items()}
    if name in of.categorical:
        tiled["categorical"][:, of.blocks[name]] = np.repeat(
            np.eye(len(grid), dtype=np.float32), n, axis=0
        )
    else:
        tiled["numeric"][:, column] = np.repeat(np.array(grid, np.float32), n)
        tiled["missing"][:, column] = 0
    found = answers(tiled)
    output = found.value[:, None] if isinstance(found, Estimates) else found.probabilities
    output = (
        output[:, 1:] if output.shape[1] == 2 else output
    )  # of two classes the positive one says it all
    return grid, output.reshape(len(grid), n, -1).mean(axis=1)


def draw_importance(figure: Any, falls: NDArray[np.floating], names: list[str]) -> None:
    """Mean fall of the score by column, with the range over the repeats."""
    order = np.argsort(falls.mean(axis=1), kind="stable")[-15:]
    axes = figure.subplots()
    bars(axes, [names[j] for j in order], falls[order].mean(axis=1))
    axes.hlines(
        range(len(order)), falls[order].min(axis=1), falls[order].max(axis=1), color="black", lw=1
    )
    axes.set_xlabel("fall of the score when the column is shuffled")


def draw_dependence(figure: Any, curves: dict[str, tuple[list[Any], NDArray[np.floating]]]) -> None:
    """A panel per column: its values against the mean answer."""
    panels = figure.subplots(2, 2, sharey=True, squeeze=False).flat
    for axes, (name, (grid, output)) in zip(panels, curves.items(), strict=False):
        axes.plot(
            range(len(grid)) if isinstance(grid[0], str) else grid, output, marker=".", color=None
        )
        if isinstance(grid[0], str):
            axes.set_xticks(range(len(grid)), grid, fontsize=7)
        axes.set_xlabel(name, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(figure.axes)[len(curves) :]:
        axes.set_axis_off()
    figure.supylabel("mean answer", fontsize=9)

"""How the report shows tables: a row, what changed in it, what made the model answer so, and what
columns do (E5).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import personal
from ..types import Examples, Floats, Inputs
from .features import Features, encode, inputs_to_instances

COLUMNS, HEIGHT = 2, 1.35  # examples beside each other in a figure, and inches of each
LINES = 8  # of an example
ROWS, REPEATS, POINTS = 1000, 5, 20  # rows of E5; shuffles of a column; values of a column
Answer = Callable[[Inputs], Floats]


def features(of: Features) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """The columns' names, and the number of the column that each element of an input belongs to."""
    parts = [len(dates.numbers) for dates in of.dates.values()]
    sizes = [block.stop - block.start for block in of.blocks.values()]
    single, first = np.arange(len(of.numeric)), len(of.numeric) + len(sizes)
    numeric = np.concatenate([single, np.repeat(np.arange(first, len(of.names)), parts)])
    categorical = np.repeat(np.arange(len(single), first), sizes)
    return of.names, {"numeric": numeric, "missing": numeric, "categorical": categorical}


def reference(inputs: Inputs, of: Features) -> Inputs:
    """The usual row [1, ...], which attributions compare with: mean of what is there, shares of the
    categories.
    """
    mean = {name: values.mean(axis=0, keepdims=True) for name, values in inputs.items()}
    if of.numbers:  # a missing number counts 0 in the sum
        mean["numeric"] /= np.maximum(1 - mean["missing"], 1e-6)
        mean["missing"][:] = 0
    return mean


def row(inputs: Inputs, i: int, of: Features) -> dict[str, str]:
    """Example i as text by column."""
    (instance,) = inputs_to_instances({name: v[[i]] for name, v in inputs.items()}, of)
    cells = {}
    for name, value in instance.items():
        text = value if isinstance(value, str | None) else f"{value:.4g}"
        cells[name] = personal.shown(text, name, of.personal) or "missing"
    return cells


def example(axes: Any, inputs: Inputs, i: int, of: Features, before: Inputs | None = None) -> None:
    """Writes the columns of example i, or those alone in which it differs from what it was `before`
    a change.
    """
    text = row(inputs, i, of)
    if before is not None:
        old = row(before, i, of)
        text = {name: f"{old[name]} → {v}" for name, v in text.items() if old[name] != v}
    lines = [f"{name}: {value}" for name, value in text.items()]
    more = [f"… {len(lines) - LINES} columns more"] if len(lines) > LINES else []
    axes.text(0, 1, "\n".join(lines[:LINES] + more), va="top", fontsize=8)
    axes.set_axis_off()


def bars(axes: Any, sizes: pd.Series, count: int = 15, label: str = "") -> None:
    """Bars of so many sizes, the largest on top; red above 0, blue below."""
    chosen = sizes.sort_values(key=abs, kind="stable").tail(count)
    chosen.plot.barh(ax=axes, color=np.where(chosen > 0, "C3", "C0"), fontsize=7, xlabel=label)


def explained(axes: Any, inputs: Inputs, i: int, added: Any, of: Features) -> None:
    """Bars of what the strongest columns of example i added: red spoke for the answer, or up; blue
    against, or down.
    """
    names = [f"{name[:20]} = {value}" for name, value in row(inputs, i, of).items()]
    bars(axes, pd.Series(added.by_feature[i], names), 6)


def importance(figure: Any, added: Any, of: Features) -> None:
    """Bars of how much each column added over all rows, the largest on top."""
    sizes = pd.Series(added.importance())
    bars(figure.subplots(), sizes, label="mean size of what the column added")


def head(rows: pd.DataFrame, of: Features) -> pd.DataFrame:
    """The first raw rows as a table."""
    return personal.rows(rows[[*of.names, "label"]].head(), of.personal)


def column_plots(
    examples: Examples, outputs: Answer, losses: Callable[[Inputs, Any], Floats], of: Features
) -> dict[str, Callable[[Any], None]]:
    """Drawers by name: permutation importance of all columns, partial dependence of the four most
    important ones. `outputs` are the answers as numbers [n, outputs].
    """
    rows, label = examples.rows[of.names][:ROWS], examples.label[:ROWS]
    falls = permutation_importance(rows, lambda changed: losses(encode(changed, of), label))
    named = falls.drop(index=[*personal.marks(of.model_dump())], errors="ignore").nlargest(4)
    curves = {name: partial_dependence(rows[:200], name, outputs, of) for name in named.index}
    text = "fall of the score when the column is shuffled"
    return {
        "permutation importance": lambda figure: bars(figure.subplots(), falls, label=text),
        "partial dependence": lambda figure: draw_dependence(figure, curves),
    }


def permutation_importance(
    rows: pd.DataFrame, losses: Callable[[pd.DataFrame], Floats]
) -> "pd.Series[float]":
    """Mean fall of the score by column when that one alone is shuffled (Breiman 2001,
    doi:10.1023/A:1010933404324).
    """
    rng, falls = np.random.default_rng(0), {}
    for name in rows.columns:
        shuffled = [rng.permutation(rows[name]) for _ in range(REPEATS)]
        falls[name] = np.mean([losses(rows.assign(**{name: values})) for values in shuffled])
    return pd.Series(falls) - losses(rows).mean()


def partial_dependence(
    rows: pd.DataFrame, name: str, outputs: Answer, of: Features
) -> pd.DataFrame:
    """The mean answer [values, outputs] when all rows have that value in a column.

    Friedman 2001, doi:10.1214/aos/1013203451. Values are the categories, or quantiles from 5 % to
    95 %.
    """
    levels = np.linspace(0.05, 0.95, POINTS)
    values: Any = of.categorical.get(name)
    if values is None:
        present = rows[name].dropna().sort_values()
        values = present.iloc[(levels * (len(present) - 1)).round().astype(int)].unique()
    means = [outputs(encode(rows.assign(**{name: v}), of)).mean(axis=0) for v in values]
    return pd.DataFrame(means, index=values)


def draw_dependence(figure: Any, curves: dict[str, pd.DataFrame]) -> None:
    """A plot per column: its values against the mean answer."""
    for i, (name, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(2, 2, i + 1)
        curve.plot(ax=axes, marker=".", legend=False, xlabel=name)
    figure.supylabel("mean answer")

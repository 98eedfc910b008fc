"""Plots of test rows: those that the model finds hardest and easiest, with what each feature added
to their answers (M5), violations (M8, M9), and what columns do (E5).
"""

import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..task import show
from ..types import Floats, Inputs
from . import attribution
from .direction import levels, partners
from .subject import Subject

RED = "#dc2626"
ROWS = 6  # in a figure


def drawers(
    model: Subject, content: dict[str, Any], explanation: attribution.Attributions
) -> dict[str, Any]:
    """Drawers by method and what they show."""
    made = {"M5": partial(show.importance, added=explanation, of=model.features)}
    hardness = model.functions.hardness(model.answers(), model.test.label)
    order = np.argsort(hardness, kind="stable")
    made["M5 hardest"] = partial(explained, model=model, rows=order[::-1][:ROWS])
    made["M5 easiest"] = partial(explained, model=model, rows=order[:ROWS])
    for method in ("M8", "M9"):
        rows = choose(content["methods"][method]["details"].get("violating_rows", {}))
        if rows:
            made[f"{method} examples"] = partial(violations, model=model, rows=rows)
    return made | {f"E5 {name}": drawer for name, drawer in column_plots(model).items()}


def column_plots(model: Subject) -> dict[str, Any]:
    functions = model.functions

    def outputs(inputs: Inputs) -> Floats:
        return functions.outputs(model.answer(inputs))

    def losses(inputs: Inputs, label: NDArray[Any]) -> Floats:
        return functions.row_losses(model.answer(inputs), label, model.scale)

    return show.column_plots(model.test, outputs, losses, model.features, model.generator())


def tables(model: Subject, folder: Path) -> dict[str, Path]:
    """The first raw rows as a file, where the task shows them as a table."""
    head, path = show.head(model.splits["train"].rows, model.features), folder / "E5_first_rows.csv"
    if head is None:
        return {}
    head.to_csv(path, index=False)
    return {"E5 first rows": path}


def grid(figure: Any, count: int) -> list[Any]:
    """So many axes, as many beside each other as the task shows."""
    rows = -(-count // show.COLUMNS)
    figure.set_size_inches(5, rows * (show.HEIGHT + 0.45) + 0.1)
    cells = list(figure.subplots(rows, show.COLUMNS, squeeze=False).flat)
    for axes in cells[count:]:
        axes.set_axis_off()
    return cells[:count]


def take(inputs: Inputs, rows: Any) -> Inputs:
    return {name: values[rows] for name, values in inputs.items()}


def explained(figure: Any, model: Subject, rows: NDArray[np.int64]) -> None:
    """Test rows with what each feature added to their answer; wrong classes in red."""
    added, labels = attribution.explain(model, rows), model.settings.data.labels
    inputs, answers = (
        take(model.test.inputs, rows),
        model.functions.answered(model.answers(), labels),
    )
    for i, axes in enumerate(grid(figure, len(rows))):
        row = rows[i]
        show.explained(axes, inputs, i, added, model.features)
        truth, answer = model.functions.text(model.test.label[row], labels), answers[row]
        colour = RED if labels and truth != answer else "black"
        axes.set_title(f"{truth}, said {answer}", fontsize=8, loc="right", color=colour)


def choose(violating: dict[str, list[int]]) -> list[tuple[str, int]]:
    """A few violating rows, of every change in turn."""
    turns = [(turn, name, row) for name, rows in violating.items() for turn, row in enumerate(rows)]
    return [(name, row) for _, name, row in sorted(turns, key=lambda t: t[0])[:ROWS]]


def violations(figure: Any, model: Subject, rows: list[tuple[str, int]]) -> None:
    """Rows before and after a change that should have been answered otherwise."""
    for axes, (name, row) in zip(grid(figure, len(rows)), rows, strict=True):
        change = altered if name in model.declared.invariances else misdirected
        before, after, words = change(model, name, np.array([row]))
        show.example(axes, after, 0, model.features, before)
        axes.set_title(f"{textwrap.fill(name, 78 // show.COLUMNS)}\n{words}", fontsize=7)


def altered(model: Subject, name: str, row: Any) -> tuple[Inputs, Inputs, str]:
    """A row before and after a harmless change that altered its answer (M8)."""
    before = take(model.test.inputs, row)
    after = model.declared.invariances[name](before)
    labels = model.settings.data.labels
    answers = [model.functions.answered(model.answer(x), labels)[0] for x in (before, after)]
    return before, after, " → ".join(answers)


def misdirected(model: Subject, name: str, row: Any) -> tuple[Inputs, Inputs, str]:
    """A row whose answer fell though it must not (M9), with the partner that the method drew: the
    value, or the probability of the class.
    """
    data, test, change = model.settings.data, model.test, model.declared.directions[name]
    partner = partners(test.label, model.generator())[row]
    inputs, others = take(test.inputs, row), take(test.inputs, partner)
    pair = change.less(inputs, others), change.more(inputs, others)
    label = test.label[partner]
    both = [levels(data.kind, model.answer(x), change, label, data.labels)[0] for x in pair]
    return *pair, f"{both[0]:.4g} → {both[1]:.4g}"

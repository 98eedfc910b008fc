"""Plots of test rows: those that the model finds hardest and easiest, with what each feature added
to their answers (M5), violations (M8, M9), and what columns do (E5).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import pages, personal
from ..task import show
from ..types import Inputs
from . import attribution
from .direction import levels, partners
from .subject import Subject

ROWS, EACH = 6, 2  # in a figure, and of those violations of the same change


def draw_all(
    model: Subject, content: dict[str, Any], explanation: Any, folder: Path
) -> dict[str, Path]:
    """Draws into the folder, and writes the first raw rows where the task has them as a table."""
    order = np.argsort(model.functions.hardness(model.answers(), model.test.label), kind="stable")
    drawers: dict[str, Any] = {
        "M5": partial(show.importance, added=explanation, of=model.features),
        "M5 hardest": partial(explained, model=model, rows=order[::-1][:ROWS]),
        "M5 easiest": partial(explained, model=model, rows=order[:ROWS]),
    }
    for method in ("M8", "M9"):
        violating = content["methods"][method]["details"].get("violating_rows", {})
        rows = [(name, row) for name, rows in violating.items() for row in rows[:EACH]]
        if rows:
            drawers[f"{method} examples"] = partial(violations, model=model, rows=rows[:ROWS])
    columns = show.column_plots(model.test, model.outputs, model.losses, model.features)
    drawers |= {f"E5 {name}": drawer for name, drawer in columns.items()}
    files = pages.draw_all(drawers, folder)
    head = show.head(model.splits["train"].rows, model.features)
    if head is not None:
        files["E5 first rows"] = folder / "E5_first_rows.csv"
        head.to_csv(files["E5 first rows"], index=False)
    return files


def grid(figure: Any, count: int) -> list[Any]:
    """So many axes, as many beside each other as the task shows."""
    rows = -(-count // show.COLUMNS)
    figure.set_size_inches(5, rows * (show.HEIGHT + 0.45))
    return [figure.add_subplot(rows, show.COLUMNS, i + 1) for i in range(count)]


def explained(figure: Any, model: Subject, rows: NDArray[np.int64]) -> None:
    """Test rows with what each feature added to their answer."""
    added, labels = attribution.explain(model, rows), model.settings.data.labels
    inputs = {name: values[rows] for name, values in model.test.inputs.items()}
    answers = model.functions.answered(model.answers(), labels)
    for i, (row, axes) in enumerate(zip(rows, grid(figure, len(rows)), strict=True)):
        show.explained(axes, inputs, i, added, model.features)
        truth = model.functions.text(model.test.label[row], labels)
        truth = personal.shown(truth, "label", personal.marks(model.settings.data.features))
        words = pages.wrapped(f"{truth}, said {answers[row]}", 72 // show.COLUMNS)
        axes.set_title(words, fontsize=7, loc="right")


def violations(figure: Any, model: Subject, rows: list[tuple[str, int]]) -> None:
    """Rows before and after a change that should have been answered otherwise."""
    changes = {name: changed(model, name) for name in dict(rows)}
    for axes, (name, row) in zip(grid(figure, len(rows)), rows, strict=True):
        (before, after), answers = changes[name]
        show.example(axes, after, row, model.features, before)
        words = " → ".join(pages.cell(answer[row]) for answer in answers)
        lines = [pages.wrapped(text, 78 // show.COLUMNS) for text in (name, words)]
        axes.set_title("\n".join(lines), fontsize=7)


def changed(model: Subject, name: str) -> tuple[tuple[Inputs, Inputs], list[Any]]:
    """All test rows before and after a declared change, and both answers: of a direction (M9) the
    value, or the probability of the class, with the partners that the method drew.
    """
    data, test = model.settings.data, model.test
    if name in model.declared.invariances:
        pair = test.inputs, model.declared.invariances[name](test.inputs)
        return pair, [model.functions.answered(model.answer(x), data.labels) for x in pair]
    change, partner = model.declared.directions[name], partners(test.label, model.generator())
    others = {key: values[partner] for key, values in test.inputs.items()}
    pair = change.less(test.inputs, others), change.more(test.inputs, others)
    label = test.label[partner]
    return pair, [levels(data.kind, model.answer(x), change, label, data.labels) for x in pair]

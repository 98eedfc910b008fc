"""Figures made of test rows: those it finds hardest and easiest, with what they are answered by,
and violations.
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..settings import Settings
from ..task import show
from ..task.features import Features
from ..types import Answers, Change, Direction, Estimates, Examples, Inputs
from . import attribution
from .direction import partners

if TYPE_CHECKING:
    from .evaluate import Judged

Drawer = Callable[[Any], None]
RED = "#dc2626"
SHOWN = 6  # rows in a figure


def drawers(
    judged: "Judged", answer: Callable[[Inputs], Answers], settings: Settings, of: Features
) -> dict[str, Drawer]:
    """Drawers of what explains the answers, of rows with their explanation, and of violations, by
    figure.
    """
    test, labels, train = judged.splits["test"], settings.data.labels, judged.splits["train"].inputs
    answers, whole, candidate = answer(test.inputs), judged.explained, judged.chosen.candidate
    classes = attribution.target(answers)
    made: dict[str, Drawer] = {
        "M5": partial(show.importance, values=whole.values, by_feature=whole.by_feature, of=of)
    }
    order = np.argsort(hardness(answers, test.label), kind="stable")
    for name, rows in {"M5 hardest": order[::-1][:SHOWN], "M5 easiest": order[:SHOWN]}.items():
        inputs, target = take(test.inputs, rows), None if classes is None else classes[rows]
        found = attribution.attribute(
            candidate, inputs, target, show.reference(train, of), show.features(of)
        )
        made[name] = partial(
            explained, rows=rows, found=found, answers=answers, test=test, labels=labels, of=of
        )
    violating = {
        m: judged.content["methods"][m]["details"].get("violating_rows", {}) for m in ("M8", "M9")
    }
    rng = np.random.default_rng(settings.seed)
    pairs = {
        "M8 examples": altered(violating["M8"], test, judged.declared.invariances, answer, labels),
        "M9 examples": misdirected(
            violating["M9"], test, judged.declared.directions, answer, labels, rng
        ),
    }
    return made | {name: partial(violations, pairs=p, of=of) for name, p in pairs.items() if p}


def grid(figure: Any, count: int) -> list[Any]:
    """`count` panels, as many beside each other as the task shows."""
    rows = -(-count // show.COLUMNS)
    figure.set_size_inches(5, rows * (show.HEIGHT + 0.45) + 0.1)
    panels = list(figure.subplots(rows, show.COLUMNS, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return panels[:count]


def take(inputs: Inputs, rows: NDArray[np.int64]) -> Inputs:
    return {name: values[rows] for name, values in inputs.items()}


def said(answers: Answers, i: int, labels: list[str]) -> str:
    return f"{answers.value[i]:.4g}" if isinstance(answers, Estimates) else labels[answers.label[i]]


def hardness(answers: Answers, label: NDArray[Any]) -> NDArray[np.floating]:
    """How wrong each answer [n] is: 1 - probability of the true class, or the absolute error."""
    if isinstance(answers, Estimates):
        return np.asarray(np.abs(answers.value - label))
    return np.asarray(1 - answers.probabilities[np.arange(len(label)), label])


def explained(
    figure: Any,
    rows: NDArray[np.int64],
    found: attribution.Attributions,
    answers: Answers,
    test: Examples,
    labels: list[str],
    of: Features,
) -> None:
    """Test rows with what each feature added to their answer (M5); `found` are the attributions of
    these rows.
    """
    inputs = take(test.inputs, rows)
    for place, (axes, i) in enumerate(zip(grid(figure, len(rows)), rows, strict=True)):
        show.explained(axes, inputs, place, found.values, found.by_feature, of)
        truth = f"{test.label[i]:.4g}" if isinstance(answers, Estimates) else labels[test.label[i]]
        wrong = not isinstance(answers, Estimates) and answers.label[i] != test.label[i]
        axes.set_title(
            f"{truth}, said {said(answers, i, labels)}",
            fontsize=8,
            loc="right",
            color=RED if wrong else "black",
        )


@dataclass(frozen=True)
class Pair:
    """Row `i` before and after a declared change, and what was answered."""

    name: str
    before: Inputs
    after: Inputs
    i: int
    words: str


def violations(figure: Any, pairs: list[Pair], of: Features) -> None:
    """Rows before and after a change that should have been answered otherwise."""
    for axes, pair in zip(grid(figure, len(pairs)), pairs, strict=True):
        show.example(axes, pair.after, pair.i, of, pair.before)
        axes.set_title(f"{textwrap.fill(pair.name, 78 // show.COLUMNS)}\n{pair.words}", fontsize=7)


def choose(violating: dict[str, list[int]]) -> list[tuple[str, int]]:
    """A few violating rows, of every change in turn."""
    turns = [(turn, name, row) for name, rows in violating.items() for turn, row in enumerate(rows)]
    return [(name, row) for _, name, row in sorted(turns, key=lambda t: t[0])[:SHOWN]]


def altered(
    violating: dict[str, list[int]],
    test: Examples,
    changes: dict[str, Change],
    answer: Callable[[Inputs], Answers],
    labels: list[str],
) -> list[Pair]:
    """Rows whose answer a harmless change altered (M8)."""
    before = answer(test.inputs)
    after = {name: changes[name](test.inputs) for name, rows in violating.items() if rows}
    answers = {name: answer(inputs) for name, inputs in after.items()}
    return [
        Pair(
            name,
            test.inputs,
            after[name],
            i,
            f"{said(before, i, labels)} → {said(answers[name], i, labels)}",
        )
        for name, i in choose(violating)
    ]


def misdirected(
    violating: dict[str, list[int]],
    test: Examples,
    directions: dict[str, Direction],
    answer: Callable[[Inputs], Answers],
    labels: list[str],
    rng: Generator,
) -> list[Pair]:
    """Rows whose answer fell though it must not (M9); `rng` is in the state in which the method
    found them.
    """
    other = partners(test.label, rng)
    others, pairs = take(test.inputs, other), []
    for name, i in choose(violating):
        change = directions[name]
        less, more = change.less(test.inputs, others), change.more(test.inputs, others)
        levels, what = [], "predicted"
        for answers in (answer(take(less, np.array([i]))), answer(take(more, np.array([i])))):
            if isinstance(answers, Estimates):
                levels.append(f"{answers.value[0]:.4g}")
            else:
                k = test.label[other[i]] if change.label is None else labels.index(change.label)
                levels.append(f"{answers.probabilities[0, k]:.0%}")
                what = labels[k]
        pairs.append(Pair(name, less, more, i, f"{what}: {' → '.join(levels)}"))
    return pairs

"""The plots of the evaluation report: one file each, named by its method."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import pages
from ..provenance import read_json
from .cost import row_costs
from .subject import Subject

RED, GREY = "C3", "0.6"
ROW_PLOTS = find_spec(f"{__package__}.row_plots")  # of rows and columns: in the full profile alone
Drawer = Callable[[Any], None]
"""Draws into a figure."""


def draw_all(
    model: Subject, content: dict[str, Any], explanation: Any, folder: Path
) -> dict[str, Path]:
    """Draws every plot of the report that has something to show into the folder; files by method
    and what they show.
    """
    data, answers, label = model.settings.data, model.answers(), model.test.label
    first, *_ = model.functions.plots(answers, label, data.labels).values()
    drawers: dict[str, Drawer] = {"M3": first}
    training = read_json(model.settings.paths.reports / "training.json")
    if training.get("losses"):  # a module of the owner's keeps none
        drawers["training"] = partial(learning, losses=training["losses"])
    if len(data.labels) == 2:
        stored = content["metrics"][content["candidate"]]["test"]
        drawers["M3 curves"] = partial(curves, answers=answers, label=label, stored=stored)
    if len(data.labels) <= 2:  # of several classes no single number decides
        drawers["M4"] = partial(costs, model=model)
    for name, drawer in METHODS.items():
        verdict = content["methods"][name]
        if verdict["details"]:
            drawers[name] = partial(drawer, verdict=verdict, **verdict["details"])
    files = pages.draw_all(drawers, folder)
    if ROW_PLOTS:
        files |= import_module(ROW_PLOTS.name).draw_all(model, content, explanation, folder)
    return files


def curves(figure: Any, answers: Any, label: NDArray[Any], stored: dict[str, float]) -> None:
    """Both curves over all thresholds, with the stored one marked."""
    from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

    left, right = figure.subplots(1, 2)
    for display, axes in ((RocCurveDisplay, left), (PrecisionRecallDisplay, right)):
        display.from_predictions(
            label, answers.probabilities[:, 1], ax=axes, plot_chance_level=True
        )
        axes.get_legend().remove()
    left.plot(stored["fpr"], stored["tpr"], "o", color=RED)
    right.plot(stored["recall"], stored["precision"], "o", color=RED)
    left.set(xlabel="false alarms", ylabel="found")
    right.set(xlabel="found", ylabel="right among alarms")


def learning(figure: Any, losses: dict[str, list[float]]) -> None:
    """Loss by epoch."""
    curves = pd.DataFrame(losses, index=range(1, 1 + len(losses["train/loss"])))
    curves.columns = ["rows it learnt from", "validation rows"]
    axes = curves.plot(ax=figure.subplots(), marker=".", xlabel="epoch", ylabel="loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))


def costs(figure: Any, model: Subject) -> None:
    """Mean cost of an answer by threshold, or by shift of a value; the stored one is marked."""
    data, axes = model.settings.data, figure.subplots()
    name, stored, places, moved = model.functions.at_other_rules(model.answers(), model.rule)
    means = [row_costs(data.kind, data.goal.costs, m, model.test.label).mean() for m in moved]
    axes.plot(places, means)
    axes.axvline(stored, color=RED, ls="--")
    axes.set(xlabel=name, ylabel="mean cost of an answer", ylim=(0, None))


def tall(figure: Any, names: list[str]) -> tuple[Any, range]:
    """Axes with room for so many named rows, the first on top, and the rows' places."""
    texts, places = [pages.wrapped(name, 28) for name in names], range(len(names))
    lines = max(text.count("\n") for text in texts)
    figure.set_size_inches(5, 1 + (0.3 + 0.15 * lines) * len(names))
    axes = figure.subplots()
    axes.set_yticks(places, texts)
    axes.set_ylim(len(names) - 0.5, -0.5)
    return axes, places


def intervals(figure: Any, rows: dict[str, dict[str, Any]], middle: str, across: float) -> Any:
    """A point with its interval for each row, the first on top, red where it was searched; a line
    across.
    """
    axes, places = tall(figure, list(rows))
    frame = pd.DataFrame(list(rows.values()))
    colours = ["C0" if row.get("declared", True) else RED for row in rows.values()]
    axes.hlines(places, frame["low"], frame["high"], colors=colours, lw=3)
    axes.scatter(frame[middle], places, c=colours)
    axes.axvline(across, color=GREY, ls="--")
    return axes


def comparison(figure: Any, **others: Any) -> None:
    """Difference of the mean losses with its interval, per other model."""
    others.pop("verdict")
    axes = intervals(figure, others, "difference", 0)
    axes.set_xlabel("mean loss minus the other model's: left of 0 is better")


def slice_bars(figure: Any, slices: list[dict[str, Any]], overall: float, **_: Any) -> None:
    """Mean loss per slice with its interval; searched ones in red."""
    rows = {f"{row['slice']} ({row['rows']})": row for row in slices[:15]}
    intervals(figure, rows, "loss", overall).set_xlabel("mean loss with interval")


def robustness(
    figure: Any, clean: float, curves: dict[str, Any], attacks: dict[str, float], **_: Any
) -> None:
    """Score by severity as a share of the clean one; attacks are single points on the right."""
    figure.set_size_inches(5, 4)
    axes, clean = figure.subplots(), max(clean, 1e-9)
    shares = pd.DataFrame(curves, index=range(1, 6)) / clean
    shares.plot(ax=axes, style=[f"{marker}-" for marker in "osD^vPX*"], ms=4, lw=1, legend=False)
    for i, (name, value) in enumerate(attacks.items(), 6):
        axes.plot(i, value / clean, "_", ms=10, mew=3, label=name)
    axes.set(xlabel="severity, and attacks behind it", ylabel="share of the clean score")
    axes.set(xticks=range(1, 6 + len(attacks)), ylim=(max(-1, min(0, axes.get_ylim()[0])), 1.08))
    figure.legend(fontsize=7, ncols=3, loc="outside lower center", frameon=False)


def violations(figure: Any, rates: dict[str, float], verdict: dict[str, Any], **_: Any) -> None:
    """Share of violating rows per declared change, against the limit."""
    axes, places = tall(figure, list(rates))
    axes.barh(places, list(rates.values()))
    axes.axvline(verdict["threshold"], color=RED, ls="--")
    axes.set(xlabel="share of rows that violate it, and its limit", xlim=(0, None))


def reliability(figure: Any, diagram: dict[str, list[float]], **_: Any) -> None:
    """Promised against found shares; the larger a point, the more rows."""
    figure.set_size_inches(5, 3.6)
    axes, (promised, found, *shares) = figure.subplots(), diagram.values()
    sizes = 20 + 300 * np.array(shares[0]) if shares else 35
    axes.plot([0, 1], [0, 1], color=GREY, ls="--")
    axes.scatter(promised, found, sizes, alpha=0.7)
    axes.set(xlabel="promised", ylabel="share that came true", aspect="equal")


def risk(figure: Any, coverage: list[float], risk: list[float], **_: Any) -> None:
    """Mean loss of the rows answered when the surest alone are; dashed if the order were random."""
    axes = figure.subplots()
    axes.axhline(risk[-1], color=GREY, ls="--")
    axes.plot(coverage, risk)
    axes.set(xlabel="share of rows answered, surest first", ylabel="mean loss")


METHODS: dict[str, Callable[..., None]] = {
    "M6": comparison,
    "M7": robustness,
    "M8": violations,
    "M9": violations,
    "M10": reliability,
    "M11": risk,
    "M12": slice_bars,
}

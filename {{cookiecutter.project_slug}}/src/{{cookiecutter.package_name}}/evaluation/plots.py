"""The plots of the evaluation report and of the baselines' runs: one file each, named by its
method.
"""

import textwrap
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import pages
from .cost import row_costs
from .subject import Subject

BLUE, RED, GREY = "#2563eb", "#dc2626", "#9ca3af"
Drawer = Callable[[Any], None]
"""Draws into a figure."""
ROW_PLOTS = find_spec(f"{__package__}.row_plots")  # of rows and columns: in the full profile alone


def draw_all(
    model: Subject, content: dict[str, Any], explanation: Any, folder: Path
) -> dict[str, Path]:
    """Draws every plot of the report into the folder; files by method and what they show."""
    drawers = methods(model, content)
    if ROW_PLOTS is None:
        return save(drawers, folder)
    row_plots = import_module(ROW_PLOTS.name)
    files = save(drawers | row_plots.drawers(model, content, explanation), folder)
    return {**files, **row_plots.tables(model, folder)}


def save(drawers: dict[str, Drawer], folder: Path) -> dict[str, Path]:
    """Draws into files in the folder and returns them by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name.replace(' ', '_')}.png" for name in drawers}
    for name, drawer in drawers.items():
        files[name].write_bytes(pages.draw(drawer))
    return files


def methods(model: Subject, content: dict[str, Any]) -> dict[str, Drawer]:
    """Drawers of the methods that have something to show; the name starts with the method."""
    data, answers, label = model.settings.data, model.answers(), model.test.label
    first, *_ = model.functions.plots(answers, label, data.labels).values()
    drawers: dict[str, Drawer] = {"M3": first}
    if len(data.labels) == 2:
        drawers["M3 curves"] = partial(roc_and_precision, answers=answers, label=label)
    if len(data.labels) <= 2:  # of several classes no single number decides
        drawers["M4"] = partial(cost_curve, model=model)
    details = {name: v["details"] for name, v in content["methods"].items() if v["details"]}
    by_method: dict[str, Callable[..., None]] = {
        "M6": partial(comparison, name=content["candidate"]),
        "M7": partial(curves, score=model.functions.SCORE),
        "M8": partial(rates, limit=content["methods"]["M8"]["threshold"]),
        "M9": partial(rates, limit=content["methods"]["M9"]["threshold"]),
        "M10": reliability,
        "M11": partial(risk, loss=model.functions.LOSS),
        "M12": slice_bars,
    }
    for name, drawer in by_method.items():
        if name in details:
            drawers[name] = partial(drawer, details=details[name])
    return drawers


def roc_and_precision(figure: Any, answers: Any, label: NDArray[Any]) -> None:
    """Both curves over all thresholds, with the stored one marked."""
    from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

    figure.set_size_inches(5, 2.6)
    left, right = figure.subplots(1, 2)
    score, truth, alarm = answers.probabilities[:, 1], label == 1, answers.label == 1
    RocCurveDisplay.from_predictions(truth, score, ax=left, plot_chance_level=True)
    PrecisionRecallDisplay.from_predictions(truth, score, ax=right, plot_chance_level=True)
    hits = (alarm & truth).sum()
    recall, false_alarms = hits / max(1, truth.sum()), (alarm & ~truth).sum()
    left.plot(false_alarms / max(1, (~truth).sum()), recall, "o", color=RED)
    right.plot(recall, hits / max(1, alarm.sum()), "o", color=RED)
    left.set(xlabel="false alarms", ylabel="found")
    right.set(xlabel="found", ylabel="right among alarms")
    for axes in (left, right):
        axes.get_legend().remove()


def cost_curve(figure: Any, model: Subject) -> None:
    """Mean cost of an answer by the threshold, or by the shift of a value; the stored one is
    marked.
    """
    data, label = model.settings.data, model.test.label
    name, stored, places, moved = model.functions.at_other_rules(model.answers(), model.rule)
    axes = figure.subplots()
    means = [row_costs(data.kind, data.goal.costs, m, label).mean() for m in moved]
    axes.plot(places, means, color=BLUE)
    axes.axvline(stored, color=RED, ls="--", label=f"stored: {stored:.3g}")
    axes.set(xlabel=name, ylabel="mean cost of an answer", ylim=(0, None))
    axes.legend(fontsize=8)


def intervals(
    figure: Any, rows: dict[str, dict[str, Any]], middle: str, colours: list[str], line: float
) -> Any:
    """A point with its interval for each row, the first at the bottom; a line across; the axes."""
    figure.set_size_inches(5, 0.9 + 0.38 * len(rows))
    axes = figure.subplots()
    for i, (row, colour) in enumerate(zip(rows.values(), colours, strict=True)):
        axes.plot([row["low"], row["high"]], [i, i], color=colour, lw=3)
        axes.plot(row[middle], i, "o", color=colour)
    axes.axvline(line, color=GREY, ls="--")
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=7)
    return axes


def comparison(figure: Any, details: dict[str, Any], name: str) -> None:
    """Difference of the mean losses with its interval, per other model."""
    axes = intervals(figure, details, "difference", [BLUE] * len(details), 0)
    axes.set_xlabel(f"mean loss of {name} minus the other's: left of 0 is better")


def slice_bars(figure: Any, details: dict[str, Any]) -> None:
    """Mean loss per slice with its interval; found ones in red."""
    slices = details["slices"][:15][::-1]
    rows = {textwrap.fill(f"{row['slice']} ({row['rows']})", 40): row for row in slices}
    colours = [BLUE if row["declared"] else RED for row in rows.values()]
    axes = intervals(figure, rows, "loss", colours, details["overall"])
    axes.set_xlabel("mean loss with interval")


def curves(figure: Any, details: dict[str, Any], score: str) -> None:
    """Score by severity as a share of the clean one; attacks are single points on the right."""
    figure.set_size_inches(5, 4)
    axes, clean, attacks = figure.subplots(), max(details["clean"], 1e-9), details["attacks"]
    for i, (name, values) in enumerate(details["curves"].items()):
        shares, label = np.array(values) / clean, name.replace("_", " ")
        axes.plot(range(1, 6), shares, marker="osD^vPX*"[i % 8], ms=4, lw=1, label=label)
    for i, (name, value) in enumerate(attacks.items()):
        colour = (RED, "black")[i % 2]
        axes.plot(5.9 + 0.2 * i, value / clean, "_", ms=10, mew=3, color=colour, label=name)
    lowest = max(-1, min(0, axes.get_ylim()[0]))
    axes.set(xlabel="severity", ylabel=f"share of the clean {score}", ylim=(lowest, 1.08))
    ticks = ["1", "2", "3", "4", "5", *(["attack"] if attacks else [])]
    axes.set_xticks(range(1, len(ticks) + 1), ticks)
    figure.legend(fontsize=7, ncols=3, loc="outside lower center", frameon=False)


def rates(figure: Any, details: dict[str, Any], limit: float) -> None:
    """Share of violating rows per declared change, against the limit."""
    shares = details["rates"]
    figure.set_size_inches(5, 0.9 + 0.42 * len(shares))
    axes = figure.subplots()
    names = [textwrap.fill(name, 34) for name in shares]
    axes.barh(names, list(shares.values()), color=BLUE, height=0.6)
    axes.axvline(limit, color=RED, ls="--", label="limit")
    axes.set_xlim(0, 1.25 * max(limit, *shares.values()))
    axes.set_xlabel("share of rows that violate it")
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(fontsize=8)


def reliability(figure: Any, details: dict[str, Any]) -> None:
    """Promised against found shares; the larger a point, the more rows."""
    figure.set_size_inches(5, 3.6)
    axes, diagram = figure.subplots(), details["diagram"]
    names = ("promised coverage of an interval", "share of rows inside")
    if "accuracy" in diagram:
        names = ("promised probability", "share that came true")
    expected, observed = list(diagram.values())[:2]
    sizes = 20 + 300 * np.array(diagram.get("share", np.full(len(expected), 0.05)))
    axes.plot([0, 1], [0, 1], color=GREY, ls="--")
    axes.scatter(expected, observed, s=sizes, color=BLUE, alpha=0.7, lw=0)
    axes.set(xlabel=names[0], ylabel=names[1], xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")


def risk(figure: Any, details: dict[str, Any], loss: str) -> None:
    """Mean loss of the rows answered when the surest alone are; dashed if the order were random."""
    axes, overall = figure.subplots(), details["risk"][-1]
    axes.axhline(overall, color=GREY, ls="--")
    axes.plot(details["coverage"], details["risk"], color=BLUE)
    top = 1.15 * max(*details["risk"], overall, 1e-3)
    axes.set(xlim=(0, 1.02), ylim=(-0.03 * top, top), ylabel=loss)
    axes.set_xlabel("share of rows answered, surest first")

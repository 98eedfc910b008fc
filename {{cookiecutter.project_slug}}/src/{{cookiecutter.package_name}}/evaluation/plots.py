"""The pictures of the evaluation report, one file per method."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datamodule import Examples
from ..data.features import draw
from ..modeling.predictions import Decisions
from ..settings import Settings

BLUE, RED, GREY = "#2563eb", "#dc2626", "#9ca3af"


def draw_all(
    content: dict[str, Any], decisions: Decisions, test: Examples, settings: Settings, folder: Path
) -> dict[str, Path]:
    """Draws every plot into the folder and returns the files by method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    methods = content["methods"]
    drawers: dict[str, tuple[tuple[float, float], Callable[[Any], None]]] = {
        "M3": ((6, 5), lambda figure: confusion(figure, content["confusion"], settings.data.labels)),
        "M6": ((7, 3), lambda figure: comparison(figure, methods["M6"]["details"], content["candidate"])),
        "M7": ((7, 4), lambda figure: curves(figure, methods["M7"]["details"]["curves"])),
        "M8": ((7, 2.6), lambda figure: rates(figure, methods["M8"])),
        "M9": ((7, 2.2), lambda figure: rates(figure, methods["M9"])),
        "M10": ((5, 4), lambda figure: reliability(figure, methods["M10"]["details"]["diagram"])),
        "M11": ((6, 3.5), lambda figure: risk(figure, methods["M11"]["details"])),
        "M12": ((7, 4), lambda figure: slice_bars(figure, methods["M12"]["details"])),
        "worst": ((8, 3.2), lambda figure: worst(figure, decisions, test, settings)),
    }
    files = {}
    for name, (size, drawer) in drawers.items():
        figure = plt.figure(figsize=size, layout="constrained")
        drawer(figure)
        files[name] = folder / f"{name}.png"
        figure.savefig(
            files[name], dpi=110, metadata={"Software": None}
        )  # no version: the same data give the same bytes
        plt.close(figure)
    return files


def confusion(figure: Any, counts: list[list[int]], labels: list[str]) -> None:
    axes, table = figure.subplots(), np.array(counts)
    axes.imshow(np.sqrt(table), cmap="Blues")
    for (i, j), count in np.ndenumerate(table):
        if count:
            axes.text(
                j,
                i,
                int(count),
                ha="center",
                va="center",
                color="white" if count > table.max() / 3 else "black",
                fontsize=8,
            )
    axes.set(xticks=range(len(labels)), yticks=range(len(labels)), xlabel="predicted", ylabel="true")
    axes.set_xticklabels(labels)
    axes.set_yticklabels(labels)


def comparison(figure: Any, details: dict[str, Any], name: str) -> None:
    axes, names = figure.subplots(), list(details)
    for i, other in enumerate(names):
        test = details[other]
        axes.plot([test["low"], test["high"]], [i, i], color=BLUE, lw=3)
        axes.plot(test["difference"], i, "o", color=BLUE)
    axes.axvline(0, color=GREY, lw=1)
    axes.set(yticks=range(len(names)), xlabel=f"accuracy of {name} minus the other's, with interval")
    axes.set_yticklabels(names)


def curves(figure: Any, found: dict[str, list[float]]) -> None:
    axes = figure.subplots()
    for name, accuracy in found.items():
        axes.plot(range(1, len(accuracy) + 1), accuracy, marker="o", label=name)
    axes.set(xlabel="severity", ylabel="accuracy", ylim=(0, 1.02), xticks=range(1, 6))
    axes.legend(fontsize=8, ncols=2)


def rates(figure: Any, verdict: dict[str, Any]) -> None:
    axes, found = figure.subplots(), verdict["details"]["rates"]
    axes.barh(list(found), list(found.values()), color=BLUE)
    axes.axvline(verdict["threshold"], color=RED, ls="--", label="limit")
    axes.set(xlabel="share of rows that violate it", xlim=(0, 1.2 * max(verdict["threshold"], *found.values())))
    axes.legend(fontsize=8)


def reliability(figure: Any, diagram: dict[str, list[float]]) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, ls="--")
    axes.scatter(
        diagram["confidence"], diagram["accuracy"], s=20 + 300 * np.array(diagram["share"]), color=BLUE, alpha=0.7
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))


def risk(figure: Any, details: dict[str, Any]) -> None:
    axes = figure.subplots()
    axes.plot(details["coverage"], details["risk"], color=BLUE)
    axes.set(xlabel="share of rows answered, most confident first", ylabel="error rate", ylim=(0, None))


def slice_bars(figure: Any, details: dict[str, Any]) -> None:
    axes, rows = figure.subplots(), details.get("slices", [])[::-1]
    for i, row in enumerate(rows):
        axes.plot([row["low"], row["high"]], [i, i], color=BLUE, lw=3)
        axes.plot(row["accuracy"], i, "o", color=BLUE)
    axes.axvline(details.get("overall", 0), color=GREY, ls="--")
    axes.set(yticks=range(len(rows)), xlabel="accuracy with interval")
    axes.set_yticklabels([f"{r['slice']} ({r['rows']})" for r in rows], fontsize=8)


def worst(figure: Any, decisions: Decisions, test: Examples, settings: Settings) -> None:
    """The test rows whose true class got the least probability."""
    truth = decisions.probabilities[np.arange(len(test)), test.label]
    panels = figure.subplots(2, 6).flat
    for axes, i in zip(panels, np.argsort(truth, kind="stable"), strict=False):
        draw(axes, test.inputs, i)
        names = settings.data.labels
        right = decisions.label[i] == test.label[i]
        axes.set_title(
            f"{names[test.label[i]]}, said {names[decisions.label[i]]}", fontsize=9, color="black" if right else RED
        )

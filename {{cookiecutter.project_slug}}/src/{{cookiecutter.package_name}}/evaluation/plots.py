"""The charts of the evaluation report: one file each, named by its method."""

import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..modeling import kinds
from ..settings import Kind, Settings
from ..task import show
from ..task.features import Features
from ..types import Answers, Decisions, Estimates, Examples, Inputs, Rule
from . import panels
from .cost import row_costs

if TYPE_CHECKING:
    from .evaluate import Judged

BLUE, RED, GREY = "#2563eb", "#dc2626", "#9ca3af"
Drawer = Callable[[Any], None]
SCORES: dict[Kind, str] = {"multiclass": "accuracy", "binary": "accuracy", "regression": "R²"}


def draw_all(judged: "Judged", settings: Settings, folder: Path) -> dict[str, Path]:
    """Draws every chart of the report into the folder; files by method and what they show."""
    content, test, kind = judged.content, judged.splits["test"], settings.data.kind
    rule, of, candidate = (
        judged.chosen.rule,
        Features.model_validate(settings.data.features),
        judged.chosen.candidate,
    )

    def answers(inputs: Inputs) -> Answers:
        return kinds.of(kind).decide(candidate.outputs(inputs).raw, rule)

    def losses(inputs: Inputs, label: NDArray[Any]) -> NDArray[np.floating]:
        return kinds.of(kind).row_losses(answers(inputs), label, content["label_scale"])

    drawers = methods(
        content, kinds.of(kind).decide(judged.chosen.raw["test"], rule), test, settings.data.labels
    )
    drawers |= panels.drawers(judged, answers, settings, of)
    rng = np.random.default_rng(settings.seed)
    drawers |= {
        f"E5 {name}": drawer for name, drawer in show.charts(test, answers, losses, of, rng).items()
    }
    files = save(drawers, folder)
    head = show.head(judged.splits["train"].rows, of)
    if head is not None:
        files = {**files, "E5 first rows": folder / "E5_first_rows.csv"}
        head.to_csv(files["E5 first rows"], index=False)
    return files


def save(drawers: dict[str, Drawer], folder: Path) -> dict[str, Path]:
    """Draws every chart into the folder and returns the files by name. The same data give the same
    bytes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, drawer in drawers.items():
        # Five inches: on a phone a font of 9 points is then still 9 points high.
        with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
            figure = plt.figure(figsize=(5, 3.2), layout="constrained")
            drawer(figure)
            files[name] = folder / f"{name.replace(' ', '_')}.png"
            figure.savefig(
                files[name], dpi=130, metadata={"Software": None}
            )  # no version of the library
            plt.close(figure)
    return files


def methods(
    content: dict[str, Any], answers: Answers, test: Examples, labels: list[str]
) -> dict[str, Drawer]:
    """Drawers of the methods that have something to show; the name starts with the method."""
    found = content["methods"]
    details = {name: verdict["details"] for name, verdict in found.items()}
    drawers: dict[str, Drawer | None] = _metrics(content, answers, test, labels)
    if content["kind"] != "multiclass":  # of several classes no single number decides
        rule, costs = Rule.model_validate(content["decision"]), details["M4"]["costs"]
        drawers["M4"] = partial(
            cost_curve, answers=answers, label=test.label, costs=costs, rule=rule
        )
    drawers["M6"] = details.get("M6") and partial(
        comparison, details=details["M6"], name=content["candidate"]
    )
    drawers["M7"] = details.get("M7") and partial(
        curves, details=details["M7"], score=SCORES[content["kind"]]
    )
    for name in ("M8", "M9"):
        drawers[name] = details.get(name) and partial(rates, verdict=found[name])
    diagram = details.get("M10", {}).get("diagram")
    drawers["M10"] = diagram and partial(
        reliability, diagram=diagram, regression=content["kind"] == "regression"
    )
    drawers["M11"] = details.get("M11", {}).get("risk") and partial(
        risk, details=details["M11"], kind=content["kind"]
    )
    drawers["M12"] = details.get("M12", {}).get("slices") and partial(
        slice_bars, details=details["M12"]
    )
    return {name: drawer for name, drawer in drawers.items() if drawer}


def _metrics(
    content: dict[str, Any], answers: Answers, test: Examples, labels: list[str]
) -> dict[str, Drawer | None]:
    if isinstance(answers, Estimates):
        return {"M3": partial(scatter, answers=answers, label=test.label)}
    found: dict[str, Drawer | None] = {
        "M3": partial(confusion, counts=content["confusion"], labels=labels)
    }
    if content["kind"] == "binary":
        found["M3 curves"] = partial(roc_and_precision, answers=answers, label=test.label)
    return found


def confusion(figure: Any, counts: list[list[int]], labels: list[str]) -> None:
    """Test rows by true and answered class."""
    axes, table = figure.subplots(), np.array(counts)
    figure.set_size_inches(5, 4.2 if len(labels) > 4 else 3)
    axes.imshow(np.sqrt(table), cmap="Blues")
    for (i, j), count in np.ndenumerate(table):
        if count:
            white = count > table.max() / 3
            axes.text(
                j,
                i,
                int(count),
                ha="center",
                va="center",
                color="white" if white else "black",
                fontsize=8,
            )
    axes.set(xticks=range(len(labels)), yticks=range(len(labels)), xlabel="answered", ylabel="true")
    axes.set_xticklabels(
        labels, rotation=90 if max(map(len, labels)) > 3 and len(labels) > 4 else 0
    )
    axes.set_yticklabels(labels)
    axes.spines[:].set_visible(False)


def scatter(figure: Any, answers: Estimates, label: NDArray[Any]) -> None:
    """True values against predicted ones, and what is left against predicted ones."""
    figure.set_size_inches(5, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    limits = [min(label.min(), answers.value.min()), max(label.max(), answers.value.max())]
    above.plot(limits, limits, color=GREY, ls="--")
    above.scatter(answers.value, label, s=10, color=BLUE, alpha=0.6, lw=0)
    above.set_ylabel("true")
    below.axhline(0, color=GREY, ls="--")
    below.scatter(answers.value, label - answers.value, s=10, color=BLUE, alpha=0.6, lw=0)
    below.set(xlabel="predicted", ylabel="true less predicted")


def roc_and_precision(figure: Any, answers: Decisions, label: NDArray[Any]) -> None:
    """Both curves over all thresholds, with the stored one marked."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure.set_size_inches(5, 2.6)
    left, right = figure.subplots(1, 2)
    false_alarms, hits, _ = roc_curve(label, answers.probabilities[:, 1])
    left.plot([0, 1], [0, 1], color=GREY, ls="--")
    left.plot(false_alarms, hits, color=BLUE)
    precision, recall, _ = precision_recall_curve(label, answers.probabilities[:, 1])
    right.axhline(label.mean(), color=GREY, ls="--")
    right.plot(recall, precision, color=BLUE)
    given, truth = answers.label == 1, label == 1
    hit = (given & truth).sum()
    left.plot(
        (given & ~truth).sum() / max(1, (~truth).sum()), hit / max(1, truth.sum()), "o", color=RED
    )
    right.plot(hit / max(1, truth.sum()), hit / max(1, given.sum()), "o", color=RED)
    left.set(xlabel="false alarms", ylabel="found", ylim=(0, 1.02))
    right.set(xlabel="found", ylabel="right among alarms", ylim=(0, 1.02))


def cost_curve(figure: Any, answers: Answers, label: NDArray[Any], costs: Any, rule: Rule) -> None:
    """Mean cost of an answer by the threshold, or by the shift of a value; the stored one is
    marked.
    """
    if isinstance(answers, Estimates):
        places, name, stored = (
            np.linspace(-2, 2, 41),
            "shift, in predicted standard deviations",
            rule.shift,
        )
        plain = answers.value - rule.shift * answers.deviation
        moved: list[Answers] = [
            replace(answers, value=plain + s * answers.deviation) for s in places
        ]
    else:
        places, name, stored = (
            np.linspace(0, 1, 101),
            "threshold of the probability",
            rule.threshold or 0.5,
        )
        moved = [
            replace(answers, label=(answers.probabilities[:, 1] >= t).astype(np.int64))
            for t in places
        ]
    axes = figure.subplots()
    axes.plot(places, [row_costs(costs, m, label).mean() for m in moved], color=BLUE)
    axes.axvline(stored, color=RED, ls="--", label=f"stored: {stored:.3g}")
    axes.set(xlabel=name, ylabel="mean cost of an answer", ylim=(0, None))
    axes.legend(fontsize=8)


def comparison(figure: Any, details: dict[str, Any], name: str) -> None:
    """Difference of the mean losses with its interval, per other model."""
    tests = {n: t for n, t in details.items() if isinstance(t, dict) and "low" in t}
    figure.set_size_inches(5, 0.9 + 0.4 * len(tests))
    axes = figure.subplots()
    for i, test in enumerate(tests.values()):
        axes.plot([test["low"], test["high"]], [i, i], color=BLUE, lw=3)
        axes.plot(test["difference"], i, "o", color=BLUE)
    axes.axvline(0, color=GREY, lw=1)
    axes.set(
        ylim=(-0.6, len(tests) - 0.4),
        xlabel=f"mean loss of {name} minus the other's: left of 0 is better",
    )
    axes.set_yticks(range(len(tests)), list(tests))


def curves(figure: Any, details: dict[str, Any], score: str) -> None:
    """Score by severity as a share of the clean one; attacks are single points on the right."""
    figure.set_size_inches(5, 4)
    axes, clean = figure.subplots(), max(details["clean"], 1e-9)
    markers = "osD^vPX*"
    for i, (name, found) in enumerate(details["curves"].items()):
        marker = markers[i % len(markers)]
        axes.plot(
            range(1, 6),
            np.array(found) / clean,
            marker=marker,
            ms=4,
            lw=1,
            label=name.replace("_", " "),
        )
    for i, (name, found) in enumerate(details.get("attacks", {}).items()):
        axes.plot(
            5.9 + 0.2 * i, found / clean, "_", ms=10, mew=3, color=(RED, "black")[i % 2], label=name
        )
    lowest = axes.get_ylim()[0]
    axes.set(
        xlabel="severity",
        ylabel=f"share of the clean {score}",
        ylim=(max(-1, min(0, lowest)), 1.08),
    )
    ticks = [*range(1, 6), *([6] if details.get("attacks") else [])]
    axes.set_xticks(ticks, [str(t) if t < 6 else "attack" for t in ticks])
    figure.legend(fontsize=7, ncols=3, loc="outside lower center", frameon=False)


def rates(figure: Any, verdict: dict[str, Any]) -> None:
    """Share of violating rows per declared change, against the limit."""
    found = verdict["details"]["rates"]
    figure.set_size_inches(5, 0.9 + 0.42 * len(found))
    axes = figure.subplots()
    axes.barh(
        [textwrap.fill(name, 34) for name in found], list(found.values()), color=BLUE, height=0.6
    )
    axes.axvline(verdict["threshold"], color=RED, ls="--", label="limit")
    axes.set(
        xlabel="share of rows that violate it",
        xlim=(0, 1.25 * max(verdict["threshold"], *found.values())),
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(fontsize=8)


def reliability(figure: Any, diagram: dict[str, list[float]], regression: bool) -> None:
    """Promised against found shares; the larger a point, the more rows."""
    figure.set_size_inches(5, 3.6)
    axes = figure.subplots()
    promised, found = list(diagram.values())[:2]
    axes.plot([0, 1], [0, 1], color=GREY, ls="--")
    sizes = 20 + 300 * np.array(diagram.get("share", np.full(len(promised), 0.05)))
    axes.scatter(promised, found, s=sizes, color=BLUE, alpha=0.7, lw=0)
    words = (
        ("promised coverage of an interval", "share of rows inside")
        if regression
        else ("promised probability", "share that came true")
    )
    axes.set(xlabel=words[0], ylabel=words[1], xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")


def risk(figure: Any, details: dict[str, Any], kind: Kind) -> None:
    """Mean loss of the rows answered when the surest alone are; dashed if the order were random."""
    axes, overall = figure.subplots(), details["risk"][-1]
    axes.axhline(overall, color=GREY, ls="--")
    axes.plot(details["coverage"], details["risk"], color=BLUE)
    loss = "share of the variance left" if kind == "regression" else "share wrong"
    top = 1.15 * max(*details["risk"], overall, 1e-3)
    axes.set(
        xlabel="share of rows answered, surest first",
        ylabel=loss,
        xlim=(0, 1.02),
        ylim=(-0.03 * top, top),
    )


def slice_bars(figure: Any, details: dict[str, Any]) -> None:
    """Mean loss per slice with its interval; found ones in red."""
    rows = details["slices"][:15][::-1]
    figure.set_size_inches(5, 0.9 + 0.36 * len(rows))
    axes = figure.subplots()
    for i, row in enumerate(rows):
        colour = BLUE if row.get("declared", True) else RED
        axes.plot([row["low"], row["high"]], [i, i], color=colour, lw=3)
        axes.plot(row["loss"], i, "o", color=colour)
    axes.axvline(details["overall"], color=GREY, ls="--")
    axes.set_xlabel("mean loss with interval")
    names = [textwrap.fill(f"{row['slice']} ({row['rows']})", 40) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=6.5)

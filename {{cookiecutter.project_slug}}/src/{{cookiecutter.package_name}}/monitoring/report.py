"""The monitor's findings for people (HTML, terminal) and for Prometheus (text file)."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..packaging.bundle import Bundle
from .samples import Row, Sample, reference_sample, stored_sample

TEMPLATE = Path(__file__).with_name("report.html.j2")
MAX_HISTOGRAMS = 4
REFERENCE, WINDOW = "#9aa7b4", "#c2410c"
STYLE = {"alarm": "bold red", "no alarm": "bold green", "cannot tell": "bold yellow"}


def write_html(path: Path, report: dict[str, Any], rows: list[Row], bundle: Bundle) -> None:
    """One self-contained page: no script, no file or address beside it."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    page = template.render(report=report, model=bundle.card.name, plots=plots(report, rows, bundle))
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)


def plots(report: dict[str, Any], rows: list[Row], bundle: Bundle) -> list[tuple[str, str]]:
    """(caption, data URI) per picture: label shares, confidence or value, then the histograms that
    changed most.
    """
    if not rows:
        return []
    labels = bundle.card.labels
    reference, window = reference_sample(bundle), stored_sample(rows, bundle.card)
    found, pairs = [], []
    if labels:
        found.append(("Share of each predicted label", _bars(labels, reference, window)))
        pairs.append(("confidence", _confidence(reference), _confidence(window)))
    else:
        pairs.append(("predicted values", reference.answers["value"], window.answers["value"]))
        pairs.append(
            ("predicted deviations", reference.answers["deviation"], window.answers["deviation"])
        )
    for test in sorted(report["tests"], key=lambda t: (t["p"], -t["effect"])):
        name = test["name"].removeprefix("signal ")
        if test["name"] != name:
            pairs.append((name, reference.signals[name], window.signals[name]))
    return found + [
        (f"Distribution of {name}", _histogram(a, b)) for name, a, b in pairs[: MAX_HISTOGRAMS + 1]
    ]


def _confidence(sample: Sample) -> NDArray[np.floating]:
    """Probability [n] of the answered label."""
    label = sample.answers["label"]
    return np.asarray(sample.answers["probabilities"][np.arange(len(label)), label])


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("share of rows")
    return figure, axes


def _picture(figure: Any, axes: Any) -> str:
    axes.legend(frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _bars(labels: list[str], reference: Sample, window: Sample) -> str:
    figure, axes = _figure()
    places = np.arange(len(labels))
    for offset, side, colour, name in (
        (-0.2, reference, REFERENCE, "reference"),
        (0.2, window, WINDOW, "requests"),
    ):
        counts = np.bincount(side.answers["label"], minlength=len(labels))
        shares = counts / counts.sum()
        axes.bar(places + offset, shares, 0.4, color=colour, label=name)
    axes.set_xticks(places, labels, rotation=0 if max(map(len, labels)) < 4 else 45)
    return _picture(figure, axes)


def _histogram(reference: NDArray[np.floating], window: NDArray[np.floating]) -> str:
    figure, axes = _figure()
    reference, window = (
        np.asarray(side[~np.isnan(side)], np.float32) for side in (reference, window)
    )
    edges = np.histogram_bin_edges(np.concatenate([reference, window]), 20)
    for values, style in (
        (reference, {"color": REFERENCE, "label": "reference"}),
        (window, {"color": WINDOW, "label": "requests", "histtype": "step", "linewidth": 2}),
    ):
        axes.hist(values, edges, weights=np.full(len(values), 1 / max(1, len(values))), **style)
    return _picture(figure, axes)


Gauged = tuple[str, str, float | None, dict[str, str]]


def gauges(report: dict[str, Any]) -> list[Gauged]:
    """(name, help, value or None, labels) of every number that Prometheus gets."""
    numbers = report["quality"]
    found: list[Gauged] = [
        (
            "model_drift_alarm",
            "1 where the newest monitor run raised an alarm",
            report["alarm"],
            {},
        ),
        (
            "model_monitor_conclusive",
            "0 where there were too few predictions",
            report["verdict"] != "cannot tell",
            {},
        ),
        ("model_monitor_rows", "predictions in the judged window", numbers["rows"], {}),
        (
            "model_monitor_warnings",
            "signs of abuse in the judged window",
            len(report["warnings"]),
            {},
        ),
        (
            "model_error_rate",
            "errors as a share of the labelled predictions",
            numbers["error_rate"],
            {},
        ),
        (
            "model_labelled_rows",
            "labelled predictions in the judged window",
            numbers["labelled"],
            {},
        ),
        (
            "model_abstention_rate",
            "abstentions as a share of the predictions",
            numbers["abstention_rate"],
            {},
        ),
        (
            "model_confidence_mean",
            "mean confidence, an estimate of the accuracy",
            numbers["mean_confidence"],
            {},
        ),
        (
            "model_absolute_error_mean",
            "mean absolute error where labelled",
            numbers["mean_absolute_error"],
            {},
        ),
        (
            "model_deviation_mean",
            "mean predicted standard deviation",
            numbers["mean_deviation"],
            {},
        ),
        (
            "model_duplicate_share",
            "share of the requests that repeat an earlier one",
            numbers["duplicate_share"],
            {},
        ),
    ]
    for test in report["tests"]:
        name = {"test": test["name"]}
        found.append(
            (
                "model_drift_pvalue",
                "p-value after Holm's correction over all tests",
                test["adjusted"],
                name,
            )
        )
        found.append(("model_drift_effect", "effect size, 0 is equal", test["effect"], name))
    for label, share in numbers["label_shares"].items():
        found.append(("model_label_share", "share of a predicted label", share, {"label": label}))
    return found


def prometheus(path: Path, report: dict[str, Any]) -> None:
    """Gauges with the judged version in Prometheus' text format, written whole or not at all."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry, known = CollectorRegistry(), dict[str, Gauge]()
    for name, text, value, labels in gauges(report):
        if value is not None:
            if name not in known:
                known[name] = Gauge(name, text, ["version", *labels], registry=registry)
            known[name].labels(version=report["version"], **labels).set(float(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def show(report: dict[str, Any]) -> None:
    """The report on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console, numbers = Console(), report["quality"]
    table = Table(title=f"Requests to {report['version']} against the reference")
    for column in ("test", "verdict", "effect", "adjusted p"):
        table.add_column(column, no_wrap=True)
    for test in report["tests"]:
        effect = f"{test['effect_name']} {test['effect']:.2f}"
        style = "red" if test["alarm"] else ""
        table.add_row(test["name"], test["words"], effect, f"{test['adjusted']:.2g}", style=style)
    if report["tests"]:
        console.print(table)
    error = "no feedback"
    if numbers["labelled"]:
        error = f"error rate {numbers['error_rate']:.3f} on {numbers['labelled']} labelled"
    if numbers["rows"]:
        means = {"confidence": numbers["mean_confidence"], "deviation": numbers["mean_deviation"]}
        means["absolute error"] = numbers["mean_absolute_error"]
        told = "".join(
            f", mean {name} {value:.3g}" for name, value in means.items() if value is not None
        )
        abstained = f"abstained {numbers['abstention_rate']:.3f}"
        console.print(f"{numbers['rows']} predictions, {error}, {abstained}{told}", highlight=False)
    console.print(report["verdict"], style=STYLE[report["verdict"]])
    for line in [*report["reasons"], *[f"warning: {text}" for text in report["warnings"]]]:
        console.print(f"  {line}", markup=False, highlight=False)

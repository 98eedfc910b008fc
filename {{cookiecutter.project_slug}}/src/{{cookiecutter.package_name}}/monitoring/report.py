"""The monitor's findings for people (HTML, terminal) and for Prometheus (text file)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import pages
from ..packaging.bundle import Bundle
from ..types import Floats
from .samples import Row, reference_sample, stored_sample

MAX_HISTOGRAMS = 6
NUMBERS = {  # of the quality: the gauge of Prometheus, and what it is
    "rows": ("model_monitor_rows", "predictions in the judged window"),
    "error_rate": ("model_error_rate", "errors as a share of the labelled predictions"),
    "labelled": ("model_labelled_rows", "labelled predictions in the judged window"),
    "abstention_rate": ("model_abstention_rate", "abstentions as a share of the predictions"),
    "mean_confidence": (
        "model_confidence_mean",
        "mean confidence, an estimate of the accuracy: too good under strong drift, never judged",
    ),
    "mean_absolute_error": ("model_absolute_error_mean", "mean absolute error where labelled"),
    "mean_deviation": ("model_deviation_mean", "mean predicted standard deviation"),
    "duplicate_share": ("model_duplicate_share", "share of requests that repeat an earlier one"),
}
HOLM = (
    "An alarm is an adjusted p of at most {alpha}: where nothing has changed, a run raises one "
    "with at most that chance, over all tests together (Holm's correction)."
)


def write_html(path: Path, report: dict[str, Any], rows: list[Row], bundle: Bundle) -> None:
    """One self-contained page."""
    window, origin = report["window"], report["provenance"]
    reasons = [*report["reasons"], *(f"Warning: {text}" for text in report["warnings"])]
    advice = "Nothing differs from the reference by more than chance explains."
    if reasons:
        advice = "What to do: docs/runbook.md. `make routine` retrains through the same gates."
    seen = f"{window['rows']} newest predictions, {window['from']} to {window['to']}. "
    lines = [*reasons, advice, f"{seen}Report of {report['time']}."]
    first, *lines = lines
    lead = [pages.Text(first, report["verdict"]), *(pages.Text(line) for line in lines)]
    tests = pages.table(map(effect, report["tests"]), HOLM.format(**report), stack=True)
    if not report["tests"]:
        tests = pages.table([{"too few predictions": window["rows"], "needed": window["min_rows"]}])
    sections = [
        pages.Section("How well it does", [quality(report)]),
        pages.Section("Has the stream changed?", [tests]),
        pages.Section("Requests beside the reference", plots(report, rows, bundle)),
        pages.Section("Versions", [versions(report)]),
    ]
    footer = f"bundle {report['identity']} · data {origin['data']} · code {origin['code']}"
    title = f"Monitor: {bundle.card.name}, version {report['version']}"
    pages.write(path, title, lead, sections, footer)


def quality(report: dict[str, Any]) -> pages.Table:
    """The numbers that there are."""
    numbers, limit = report["quality"], report["max_error_rate"]
    rows = [
        {"number": words, "found": numbers[name]}
        for name, (_, words) in NUMBERS.items()
        if numbers[name] is not None
    ]
    caption = "There was no feedback in this window."
    if numbers["error_interval"]:
        low, high = numbers["error_interval"]
        caption = f"The error rate lies in [{low:.3f}, {high:.3f}]; its limit is {limit:g}."
    return pages.table(rows, caption)


def effect(test: dict[str, Any]) -> dict[str, Any]:
    """A test for reading."""
    return {
        "test": test["name"],
        "verdict": "alarm" if test["alarm"] else "no alarm",
        "in words": test["words"],
        "effect": f"{test['effect_name']} {test['effect']:.2f}",
        "p": test["p"],
        "adjusted p": test["adjusted"],
        "detail": test["detail"],
    }


def versions(report: dict[str, Any]) -> pages.Table:
    columns = ["request_share", *NUMBERS]
    rows = []
    for name, numbers in report["versions"].items():
        rows.append({"version": name, **{c: numbers.get(c) for c in columns}})
    return pages.table(rows, stack=True)


def plots(report: dict[str, Any], rows: list[Row], bundle: Bundle) -> list[pages.Picture]:
    """Distributions of answers, and of the signals that changed most."""
    if not rows:
        return []
    sides = reference_sample(bundle), stored_sample(rows, bundle.card)
    pairs = {f"predicted {n}": [s.answers[n] for s in sides] for n in sides[0].answers}
    for test in sorted(report["tests"], key=lambda test: (test["p"], -test["effect"])):
        name = test["name"].removeprefix("signal ")
        if name in sides[0].signals:
            pairs[name] = [side.signals[name] for side in sides]
    pictures = []
    for name, values in list(pairs.items())[:MAX_HISTOGRAMS]:
        labels = bundle.card.labels if name == "predicted label" else []
        drawer = partial(histogram, sides=values, labels=labels)
        pictures.append(pages.Picture(pages.draw(drawer), f"Distribution of {name}"))
    return pictures


def histogram(figure: Any, sides: list[Floats], labels: list[str]) -> None:
    """Shares of the reference and of the requests; of probabilities [n, k] the largest ones."""
    values = [np.atleast_2d(side.T).max(axis=0) for side in sides]
    values = [side[~np.isnan(side)] for side in values]
    bins = np.histogram_bin_edges(np.concatenate(values), 20)
    axes = figure.subplots()
    if labels:
        bins = np.arange(len(labels) + 1) - 0.5
        axes.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) < 12 else 90)
    weights = [np.full(len(side), 1 / max(1, len(side))) for side in values]
    axes.hist(values, bins, weights=weights, label=("reference", "requests"))
    axes.set_ylabel("share of rows")
    axes.legend(frameon=False)


Gauged = tuple[str, str, float | None, dict[str, str]]


def gauges(report: dict[str, Any]) -> list[Gauged]:
    """(name, help, value or None, labels) of every number that Prometheus gets."""
    numbers, conclusive = report["quality"], report["verdict"] != "cannot tell"
    rows: list[Gauged] = [
        ("model_drift_alarm", "1 where the newest run raised an alarm", report["alarm"], {}),
        ("model_monitor_conclusive", "0 where there were too few predictions", conclusive, {}),
        ("model_monitor_warnings", "signs of abuse in the window", len(report["warnings"]), {}),
    ]
    rows += [(*gauge, numbers[name], {}) for name, gauge in NUMBERS.items()]
    adjusted = "p-value after Holm's correction over all tests"
    for test in report["tests"]:
        label = {"test": test["name"]}
        rows.append(("model_drift_pvalue", adjusted, test["adjusted"], label))
        rows.append(("model_drift_effect", "effect size, 0 is equal", test["effect"], label))
    for name, share in numbers["label_shares"].items():
        rows.append(("model_label_share", "share of a predicted label", share, {"label": name}))
    return rows


def prometheus(path: Path, report: dict[str, Any]) -> None:
    """Gauges with the judged version in Prometheus' text format, written whole or not at all."""
    from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

    registry, by_name = CollectorRegistry(), dict[str, Gauge]()
    for name, words, value, labels in gauges(report):
        if value is not None:
            if name not in by_name:
                by_name[name] = Gauge(name, words, ["version", *labels], registry=registry)
            by_name[name].labels(version=report["version"], **labels).set(float(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def show(report: dict[str, Any]) -> None:
    """The report on the terminal."""
    title = f"Requests to {report['version']} against the reference"
    tables = pages.table(map(effect, report["tests"]), title), quality(report)
    for table in tables:
        pages.print_table(table.caption, table.columns, table.rows)
    print(report["verdict"])
    for line in [*report["reasons"], *(f"warning: {text}" for text in report["warnings"])]:
        print(f"  {line}")

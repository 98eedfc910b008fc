"""The monitor's findings for people (HTML, terminal) and for Prometheus (text file)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import pages
from ..packaging.bundle import Bundle
from ..types import Floats, names_on_axis
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


def write_html(
    path: Path, title: str, report: dict[str, Any], rows: list[Row], bundle: Bundle
) -> None:
    """One self-contained page."""
    pages.write(
        path,
        f"{title}: does the model still fit what it is asked?",
        template="monitoring/report.html.j2",
        report=report,
        quality=quality(report),
        tests=tests(report),
        pictures=plots(report, rows, bundle),
        versions=versions(report),
    )


def quality(report: dict[str, Any]) -> pages.Table:
    """The numbers that there are."""
    found = report["quality"]
    # An estimate of the accuracy says nothing of requests that are unlike the training data.
    changed = any(test["alarm"] for test in report["tests"])
    without = {"mean_confidence", "mean_deviation"} if changed else set()
    rows = {words: found[name] for name, (_, words) in NUMBERS.items() if name not in without}
    rows["lowest and highest likely error rate"] = found["error_interval"]
    return pages.table({"number": k, "found": v} for k, v in rows.items() if v is not None)


def tests(report: dict[str, Any]) -> pages.Table:
    """Every test for reading."""
    rows = [
        {
            "test": test["name"],
            "verdict": "alarm" if test["alarm"] else "no alarm",
            "in words": test["words"],
            "detail": test["detail"],
            "effect": f"{test['effect_name']} {test['effect']:.2f}",
            "chance, adjusted": pages.chance(test["adjusted"]),
        }
        for test in report["tests"]
    ]
    return pages.table(rows, stack=True)


def versions(report: dict[str, Any]) -> pages.Table:
    """The numbers of each version that the kind of the model has."""
    frame = pd.DataFrame(report["versions"]).T.rename_axis("version").reset_index()
    frame = frame.filter(["version", "task", "request_share", *NUMBERS]).dropna(axis=1, how="all")
    return pages.table(frame.to_dict("records"), stack=True)


def plots(report: dict[str, Any], rows: list[Row], bundle: Bundle) -> dict[str, bytes]:
    """Distributions of answers, and of the signals that changed most: PNG by name."""
    if not rows:
        return {}
    reference, window = reference_sample(bundle), stored_sample(rows, bundle.card)
    pairs = {f"predicted {n}": (v, window.answers[n]) for n, v in reference.answers.items()}
    for test in sorted(report["tests"], key=lambda test: test["p"]):
        name = test["name"].removeprefix("signal ")
        if name in reference.signals and test["name"] not in report["personal"]:
            pairs[name] = reference.signals[name], window.signals[name]
    pictures = {}
    for name, pair in [*pairs.items()][:MAX_HISTOGRAMS]:
        labels = bundle.card.labels if name == "predicted label" else []
        pictures[name] = pages.draw(partial(histogram, sides=pair, labels=labels))
    return pictures


def histogram(figure: Any, sides: tuple[Floats, Floats], labels: list[str]) -> None:
    """Shares of the reference and of the requests; of probabilities [n, k] the largest ones."""
    values = [np.atleast_2d(side.T).max(axis=0) for side in sides]
    values = [side[~np.isnan(side)] for side in values]
    weights = [np.ones(len(side)) / len(side) for side in values]
    axes, bins = figure.subplots(), np.arange(len(labels) + 1) - 0.5 if labels else 20
    axes.hist(values, bins, weights=weights, label=("reference", "requests"))
    axes.set_ylabel("share of rows")
    if labels:
        names, ticks = names_on_axis(labels)
        figure.set_size_inches(5, 4.5 if ticks["rotation"] else 3.2)
        axes.set_xticks(range(len(labels)), names, **ticks)
    figure.legend(frameon=False, ncols=2, loc="outside upper center")


def gauges(report: dict[str, Any]) -> list[tuple[str, str, float | None, dict[str, str]]]:
    """(name, help, value or None, labels) of every number that Prometheus gets."""
    numbers, conclusive = report["quality"], report["verdict"] != "cannot tell"
    values = {
        ("model_drift_alarm", "1 where the newest run raised an alarm"): report["alarm"],
        ("model_monitor_conclusive", "0 where there were too few predictions"): conclusive,
        ("model_monitor_warnings", "signs of abuse in the window"): len(report["warnings"]),
        **{gauge: numbers[name] for name, gauge in NUMBERS.items()},
    }
    rows: list[Any] = [(*gauge, value, {}) for gauge, value in values.items()]
    for test in report["tests"]:
        label = {"test": test["name"]}
        rows.append(
            ("model_drift_pvalue", "p-value adjusted over all tests", test["adjusted"], label)
        )
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
            by_name[name].labels(version=report["version"], **labels).set(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)


def show(report: dict[str, Any]) -> None:
    """The report on the terminal."""
    title = f"Requests to {report['version']} against the reference"
    for table in (tests(report), quality(report)):
        pages.print_table(title, table.columns, table.rows)
    print(report["verdict"], *report["reasons"], *report["warnings"], sep="\n  ")

"""The verb `monitor` on stored predictions: verdict, exit code, and the three reports."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from {{cookiecutter.package_name}}.monitoring import monitor
from {{cookiecutter.package_name}}.monitoring.samples import Sample
from {{cookiecutter.package_name}}.settings import Settings

pytestmark = pytest.mark.row("O3", "O4")
Draw = Callable[..., Sample]
Stream = Callable[..., list[str]]
VALUES = {"predicted values", "predicted deviations"}


def run(settings: Settings) -> tuple[int, dict[str, Any]]:
    code = monitor.run(settings, argparse.Namespace())
    return code, json.loads((settings.paths.reports / "monitor.json").read_text(encoding="utf-8"))


def test_a_clean_stream_raises_no_alarm(
    settings: Settings, ask: Stream, identity: str, draw: Draw
) -> None:
    ask(draw(400, seed=2), labelled=100, wrong=2)
    code, report = run(settings)
    assert (code, report["verdict"], report["alarm"], report["reasons"]) == (
        0,
        "no alarm",
        False,
        [],
    )
    assert report["window"]["rows"] == 300
    assert report["provenance"]["bundle"] == report["identity"] == identity
    answered = {"probabilities", "predicted labels"} if settings.data.labels else VALUES
    assert {test["name"] for test in report["tests"]} >= set(answered)
    assert {"statistic", "p", "adjusted", "effect", "words"} <= report["tests"][0].keys()


def test_a_spoiled_stream_raises_one_that_says_why_and_is_in_the_log(
    settings: Settings, ask: Stream, draw: Draw
) -> None:
    ask(draw(300, seed=2, noise=2))
    code, report = run(settings)
    assert (code, report["verdict"], report["alarm"]) == (3, "alarm", True)
    first = "probabilities" if settings.data.labels else "predicted values"
    assert any(reason.startswith(first) for reason in report["reasons"])
    text = Path("logs/monitor.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    alarm = next(line for line in lines if line["message"] == "alarm")
    assert alarm["severity"] == "WARNING" and alarm["reasons"]
    assert lines[-1]["outcome"] == "ok"


def test_only_the_newest_window_of_the_champion_counts(
    settings: Settings, ask: Stream, draw: Draw
) -> None:
    ask(draw(250, seed=3, noise=2))
    ask(draw(300, seed=2))
    ask(draw(250, seed=4, noise=2), identity="another", version="0")
    code, report = run(settings)
    assert code == 0
    assert {name: v["rows"] for name, v in report["versions"].items()} == {"1-test": 550, "0": 250}
    assert report["versions"]["0"]["request_share"] == pytest.approx(250 / 800)


def test_errors_alarm_where_they_are_surely_over_the_limit(
    settings: Settings, ask: Stream, draw: Draw
) -> None:
    for wrong, expected in ((15, 0), (40, 3)):
        ask(draw(300, seed=2), labelled=120, wrong=wrong)
        code, report = run(settings)
        assert code == expected
        assert report["quality"]["error_rate"] == pytest.approx(wrong / 120)
        assert all(reason.startswith("error rate") for reason in report["reasons"])


@pytest.mark.row("O6")
def test_prometheus_reads_the_same_numbers(settings: Settings, ask: Stream, draw: Draw) -> None:
    ask(draw(300, seed=2, noise=2), labelled=100, wrong=50)
    report = run(settings)[1]
    text = (settings.paths.reports / "monitor.prom").read_text(encoding="utf-8")
    samples = {
        (s.name, s.labels.get("test")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert samples["model_drift_alarm", None] == 1
    assert samples["model_error_rate", None] == 0.5
    assert samples["model_abstention_rate", None] == report["quality"]["abstention_rate"]
    size = "confidence" if settings.data.labels else "deviation"
    assert samples[f"model_{size}_mean", None] == report["quality"][f"mean_{size}"]
    assert (("model_absolute_error_mean", None) in samples) == (not settings.data.labels)
    assert {
        test["name"]: samples["model_drift_pvalue", test["name"]] for test in report["tests"]
    } == {test["name"]: test["adjusted"] for test in report["tests"]}


@pytest.mark.row("O6")
def test_the_page_stands_alone(settings: Settings, ask: Stream, draw: Draw) -> None:
    for rows, pictures in ((1, 2), (300, 4)):
        ask(draw(rows, seed=2, noise=2), version="<b>1</b>")
        run(settings)
        page = (settings.paths.reports / "monitor.html").read_text(encoding="utf-8")
        sources = re.findall(r'src="([^"]*)"', page)
        assert len(sources) >= pictures and "viewport" in page
        # Under an alarm no estimate stands: it cannot be trusted there.
        assert ("standard deviation" in page) == (not settings.data.labels and rows == 1)
        assert all(s.startswith("data:image/png;base64,") for s in sources)
        assert not re.search(r"https?://|<script|<link|<b>1</b>", page)


def test_what_is_missing_is_named_with_the_command_that_makes_it(
    settings: Settings, draw: Draw, request: Any
) -> None:
    with pytest.raises(ValueError, match="run `make pipeline` first"):
        monitor.monitor(settings)
    ask = request.getfixturevalue("ask")
    with pytest.raises(ValueError, match="start `make serve`"):
        monitor.monitor(settings)
    ask(draw(199, seed=2, noise=2))
    code, report = run(settings)
    assert (code, report["verdict"], report["tests"]) == (4, "cannot tell", [])
    assert "199 predictions" in report["reasons"][0]

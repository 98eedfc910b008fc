"""The monitor for every kind, and where there is little to judge."""

import argparse
import json
from collections.abc import Callable
from typing import Any

import pytest
import watched
from kinds import every_kind

from {{cookiecutter.package_name}}.monitoring import monitor
from {{cookiecutter.package_name}}.monitoring.drift import Result
from {{cookiecutter.package_name}}.monitoring.quality import measure
from {{cookiecutter.package_name}}.monitoring.samples import Sample
from {{cookiecutter.package_name}}.settings import Settings

ask, draw, environment, identity = watched.ask, watched.draw, watched.environment, watched.identity
kind, labels, project = watched.kind, watched.labels, watched.project
raw_settings, settings = watched.raw_settings, watched.settings
pytestmark = pytest.mark.row("O3", "O4")
Draw = Callable[..., Sample]
Stream = Callable[..., list[str]]


def run(settings: Settings) -> tuple[int, dict[str, Any]]:
    code = monitor.run(settings, argparse.Namespace())
    return code, json.loads((settings.paths.reports / "monitor.json").read_text(encoding="utf-8"))


@every_kind
@pytest.mark.parametrize(("noise", "wrong", "expected"), [(0, 2, 0), (2, 2, 3), (0, 40, 3)])
def test_every_kind_is_judged(
    settings: Settings, ask: Stream, draw: Draw, noise: int, wrong: int, expected: int
) -> None:
    ask(draw(300, seed=2, noise=noise), labelled=120, wrong=wrong)
    code, report = run(settings)
    quality, size = report["quality"], "confidence" if settings.data.labels else "deviation"
    assert code == expected and "embedding" in {test["name"] for test in report["tests"]}
    assert quality[f"mean_{size}"] is not None
    assert (quality["mean_absolute_error"] is None) == bool(settings.data.labels)


@every_kind
@pytest.mark.row("O5")
def test_signs_of_abuse_warn_and_do_not_alarm(settings: Settings, ask: Stream, draw: Draw) -> None:
    ask(draw(300, seed=2), instances=[{"x": i % 5} for i in range(300)], labelled=100)
    code, report = run(settings)
    assert code == 0
    assert ["flood" in warning or "flipped" in warning for warning in report["warnings"]] == [
        True,
        True,
    ]


@every_kind
def test_a_champion_without_requests_cannot_be_judged(
    settings: Settings, ask: Stream, draw: Draw
) -> None:
    ask(draw(250, seed=2), identity="another", version="0")
    code, report = run(settings)
    assert (code, report["quality"]["mean_confidence"]) == (4, None)


def test_what_is_unknown_is_no_zero_for_prometheus(
    settings: Settings, ask: Stream, draw: Draw
) -> None:
    ask(draw(300, seed=2))
    run(settings)
    assert "model_error_rate" not in (settings.paths.reports / "monitor.prom").read_text(
        encoding="utf-8"
    )


def test_many_changes_are_told_in_a_few_lines() -> None:
    found = [
        Result(f"signal {i}", "", 0.5, 0.0, 0.5, "D", "", 0.009 / (i + 1), True) for i in range(9)
    ]
    told = monitor.alarms(found, measure([], None, 0.9), 1)
    assert [line[:8] for line in told[:5]] == [f"signal {i}" for i in (8, 7, 6, 5, 4)]
    assert len(told) == 6 and told[5].startswith("and 4 more")

"""Streams of requests of which it is known whether, and where, they changed."""

from collections.abc import Callable

import numpy as np
import pytest

from {{cookiecutter.package_name}}.monitoring import drift
from {{cookiecutter.package_name}}.monitoring.samples import Sample
from {{cookiecutter.package_name}}.settings import Settings

pytestmark = pytest.mark.row("O4")
Draw = Callable[..., Sample]


@pytest.fixture
def alarms(settings: Settings) -> Callable[..., set[str]]:
    """Names of the tests that see a change."""

    def compare(reference: Sample, window: Sample) -> set[str]:
        labels, limits = settings.data.labels, settings.monitoring
        results = drift.compare(reference, window, labels, limits, seed=3)
        return {result.name for result in results if result.alarm}

    return compare


def test_a_changed_stream_is_found_and_an_unchanged_one_is_not(
    draw: Draw, alarms: Callable[..., set[str]]
) -> None:
    answers = {"probabilities", "predicted values"}
    for change in ({"noise": 2}, {"only": 1}):
        assert alarms(draw(400, 1), draw(250, 7, **change)) & answers, change
    assert alarms(draw(400, 1), draw(300, 2)) == set()


def test_a_change_in_one_place_is_named(draw: Draw, alarms: Callable[..., set[str]]) -> None:
    window, depth = draw(300, 2), draw(300, 2).signals["depth"]
    missing = np.where(np.random.default_rng(3).random(300) < 0.3, np.nan, depth)
    for changed in (depth + 3, missing):
        signals = {**window.signals, "depth": changed}
        sample = Sample(window.answers, window.embedding, signals)
        assert alarms(draw(400, 1), sample) == {"signal depth"}


def test_many_tests_are_corrected_by_holm() -> None:
    assert drift.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert drift.holm([0.9, 0.8]) == [1.0, 1.0]

"""Error rates, shares and signs of abuse on rows written out by hand."""

from types import SimpleNamespace
from typing import Any

import pytest

from {{cookiecutter.package_name}} import pages
from {{cookiecutter.package_name}}.monitoring import abuse, quality, report
from {{cookiecutter.package_name}}.monitoring.samples import Row
from {{cookiecutter.package_name}}.serving.store import Model

pytestmark = pytest.mark.row("O3", "O5")


def model(*labels: str) -> Model:
    return Model(task="letters", kind="multiclass", labels=list(labels))


def measure(rows: list[Row], of: Model, confidence: float) -> SimpleNamespace:
    return SimpleNamespace(**quality.measure(rows, of, confidence))


def row(label: str | float, feedback: str | float | None = None, **changes: Any) -> Row:
    base: Row = {
        "label": label,
        "feedback": feedback,
        "confidence": 0.75,
        "abstain": False,
        "version": "1",
        "instance": {},
        "signals": {},
    }
    return base | changes


def value(answered: float, feedback: float | None = None, **changes: Any) -> Row:
    signals = {"interval": [answered - 2, answered + 1], "deviation": 1.5}
    return (
        row("", None)
        | {"label": answered, "feedback": feedback, "confidence": -1.5, "signals": signals}
        | changes
    )


def test_wilson_is_the_textbooks() -> None:
    assert quality.wilson(8, 10, 0.95) == pytest.approx(
        (0.4902, 0.9433), abs=1e-4
    )  # Brown, Cai, DasGupta 2001
    assert quality.wilson(0, 10, 0.95)[0] == 0


def test_errors_count_where_there_is_feedback() -> None:
    rows = [row("a", "a"), row("a", "b"), row("b"), row("b", abstain=True, confidence=0.25)]
    found = measure(rows, model("a", "b", "c"), 0.95)
    assert (found.rows, found.labelled, found.errors, found.error_rate) == (4, 2, 1, 0.5)
    assert found.error_interval == quality.wilson(1, 2, 0.95)
    assert found.abstention_rate == 0.25
    assert found.mean_confidence == found.estimated_accuracy == 0.625
    assert found.label_shares == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_nothing_is_claimed_of_no_rows() -> None:
    found = measure([], model("a"), 0.95)
    assert (
        found.error_rate,
        found.error_interval,
        found.abstention_rate,
        found.mean_confidence,
    ) == (None,) * 4


def test_versions_are_told_apart() -> None:
    found = quality.by_version(
        [
            row("a", "a", identity="x"),
            row("a", "b", version="2", identity="y"),
            row("b", version="2", identity="y"),
            row(17.5, 18.0, version="3", identity="unknown"),
        ],
        {"x": model("a", "b"), "y": model("b", "a", "c")},
        0.95,
    )
    assert {version: (q["rows"], q["error_rate"]) for version, q in found.items()} == {
        "1": (1, 0.0),
        "2": (2, 1.0),
        "3": (1, None),  # of a store that is older than the table of models
    }
    assert [*found["2"]["label_shares"]] == ["b", "a", "c"]


def test_a_flood_repeats_itself() -> None:
    assert abuse.duplicate_share([row("a", instance={"x": i}) for i in range(4)]) == 0
    assert (
        abuse.duplicate_share(
            [row("a", instance={"x": 1, "y": 2}), row("b", instance={"y": 2, "x": 1})]
        )
        == 0.5
    )
    assert abuse.duplicate_share([row("a", instance=None)] * 3) == 0  # not kept, for privacy


def test_flipped_labels_contradict_others_on_equal_input() -> None:
    same, other = {"instance": {"x": 1}}, {"instance": {"x": 2}}
    rows = [
        row("a", "a", **same),
        row("a", "b", **same),
        row("a", "a", **other),
        row("a", "a", **other),
        row("a"),
    ]
    assert abuse.contradiction_share(rows) == 0.5
    assert abuse.contradiction_share([]) == 0
    assert (
        abuse.contradiction_share(
            [value(1, 5.0, **same), value(1, 5.5, **same), value(1, 9.0, **other)]
        )
        == 2 / 3
    )


@pytest.mark.parametrize("alarm", [False, True])
def test_no_estimate_of_the_accuracy_stands_under_an_alarm_of_drift(alarm: bool) -> None:
    numbers = dict.fromkeys(report.NUMBERS, 0.8765) | {"error_interval": None}
    found = report.quality({"quality": numbers, "tests": [{"alarm": alarm}]})
    named = [name for name, _ in found.rows if "confidence" in name]
    assert len(named) == (0 if alarm else 1)
    assert pages.chance(0.0) == "p < 0.001" and pages.chance(0.0123) == "p = 0.0123"

"""Drift tests against answers known from elsewhere, and their false alarms and detections on
made-up streams.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import watched
from scipy import stats
from scipy.spatial.distance import cdist

from {{cookiecutter.package_name}}.monitoring import drift, embedding
from {{cookiecutter.package_name}}.monitoring.samples import Sample
from {{cookiecutter.package_name}}.settings import Monitoring

pytestmark = pytest.mark.row("O4")
Draw = Callable[..., Sample]
LABELS = ["a", "b", "c", "d"]


draw_values = watched.draw_values


@pytest.fixture
def draw() -> Draw:
    return partial(watched.sample, len(LABELS))


def compare(
    reference: Sample, window: Sample, alpha: float = 0.01, max_rows: int = 120
) -> list[drift.Result]:
    limits = Monitoring.model_construct(alpha=alpha, max_reference=max_rows)
    return drift.compare(reference, window, LABELS, limits, 3)


def alarms(results: list[drift.Result]) -> set[str]:
    return {result.name for result in results if result.alarm}


def test_ks_is_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 150), rng.normal(0.3, 1, 90)
    expected = stats.ks_2samp(a, b, method="exact")
    statistic, p = drift.ks(a, b)
    assert statistic == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, rel=0.15)  # asymptotic


def test_differences_of_rounding_are_no_differences() -> None:
    tiny = np.random.default_rng(0).uniform(0, 1e-7, 300)
    assert drift.ks(tiny, np.zeros(300)) == (0.0, 1.0)


def test_softmax_takes_the_worst_class_times_the_number_of_classes(draw: Draw) -> None:
    reference, window = (
        s.answers["probabilities"] for s in (draw(300, 0), draw(300, 1, noise=0.3))
    )
    p = [stats.ks_2samp(reference[:, j], window[:, j], method="asymp").pvalue for j in range(4)]
    result = drift.softmax_test(reference, window, LABELS)
    assert 0.001 < min(p) < 0.2
    assert result.p == pytest.approx(4 * min(p), rel=1e-3)
    assert result.detail == f"most: probability of {LABELS[int(np.argmin(p))]}"
    assert drift.softmax_test(reference, reference, LABELS).p == 1.0


def test_label_test_on_a_table_worked_by_hand() -> None:
    result = drift.shares_test("labels", [[10, 20], [20, 10]], ["a", "b"])
    assert result.statistic == pytest.approx(20 / 3)  # four cells of 5² / 15
    assert result.p == pytest.approx(math.erfc(math.sqrt(20 / 3 / 2)))  # one degree of freedom
    assert result.effect == pytest.approx(1 / 3)
    assert result.detail == "most: share of a +33 points"


def test_rare_labels_are_pooled() -> None:
    table = np.array([[100, 3, 2, 80], [100, 0, 1, 60]])
    assert sorted(drift.pool(table).sum(axis=0).tolist()) == [146, 200]
    assert drift.pool(np.array([[50, 40], [50, 40]])).shape == (2, 2)
    assert drift.shares_test("labels", [[300, 1], [300, 0]], ["a", "b"]).p == 1.0


def test_mmd_is_the_unbiased_estimate() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (20, 3)), rng.normal(0.5, 1, (30, 3))
    both = np.vstack([x, y])
    squared = cdist(both, both, "sqeuclidean")
    kernel = np.exp(-squared / (2 * np.median(squared[np.triu_indices(50, 1)])))
    xx, yy, xy = kernel[:20, :20], kernel[20:, 20:], kernel[:20, 20:]
    expected = (xx.sum() - 20) / (20 * 19) + (yy.sum() - 30) / (30 * 29) - 2 * xy.mean()
    result = embedding.mmd_test(x, y, 99, rng, max_rows=100)
    assert result.statistic == pytest.approx(expected)
    far = embedding.mmd_test(x, y + 9, 99, rng, max_rows=100)
    assert far.p == 1 / 100  # no permutation is as far apart


def test_mmd_caps_the_rows_of_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    kernel = embedding._rbf

    def counting(rows: Any) -> Any:
        sizes.append(len(rows))
        return kernel(rows)

    monkeypatch.setattr(embedding, "_rbf", counting)
    many = np.random.default_rng(0).normal(size=(900, 2))
    assert embedding.mmd_test(many, many[:40], 49, np.random.default_rng(1), max_rows=50).p > 0.02
    assert sizes == [50 + 40]


def test_one_run_rarely_cries_wolf(draw: Draw) -> None:
    runs, alpha = 150, 0.05
    found = 0
    for i in range(runs):
        results = compare(draw(250, 2 * i), draw(200, 2 * i + 1), alpha, max_rows=40)
        found += bool(alarms(results))
    assert found <= stats.binom.ppf(0.999, runs, alpha)
    assert len(results) == 5


def table(rows: int, seed: int, **changes: Any) -> Sample:
    """Answers of a model without an embedding on a table of 33 columns: numbers, categories, and
    gaps in both.
    """
    rng = np.random.default_rng(seed)
    signals = {f"number {j}": rng.normal(0, 1, rows) for j in range(20)}
    signals |= {
        f"gaps {j}": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(0, 1, rows))
        for j in range(5)
    }
    signals |= {
        f"category {j}": rng.choice([0.0, 1.0, 2.0, np.nan], rows, p=[0.5, 0.4, 0.07, 0.03])
        for j in range(8)
    }
    answers = {"value": rng.normal(150, 70, rows), "deviation": np.full(rows, 55.0)}
    return Sample(answers, None, {**signals, **changes})


@pytest.mark.slow
def test_one_run_on_a_wide_table_rarely_cries_wolf() -> None:
    runs, alpha = 400, 0.05
    found = sum(
        bool(alarms(compare(table(250, 2 * i), table(200, 2 * i + 1), alpha))) for i in range(runs)
    )
    assert found <= stats.binom.ppf(0.999, runs, alpha)
    assert len(compare(table(250, 0), table(200, 1))) == 35


def test_categories_are_tested_by_their_shares() -> None:
    rng = np.random.default_rng(0)
    moved = rng.choice([0.0, 1.0, 2.0], 300, p=[0.2, 0.7, 0.1])
    results = {r.name: r for r in compare(table(300, 1), table(300, 2, **{"category 3": moved}))}
    assert alarms(list(results.values())) == {"signal category 3"}
    assert results["signal category 3"].method == "chi-square"
    assert re.fullmatch(
        r"most: share of (0 -|1 \+)\d\d points", results["signal category 3"].detail
    )
    assert results["signal number 3"].method == "Kolmogorov-Smirnov"


def test_numbers_stored_in_single_precision_are_equal_numbers() -> None:
    values = np.random.default_rng(0).choice([0.1, 0.2, 123.456], 300)
    assert drift.scalar_test("x", values.astype(np.float32).astype(np.float64), values).p == 1.0
    many = 1e9 + 1e3 * np.arange(300.0)
    assert drift.scalar_test("x", many.astype(np.float32).astype(np.float64), many).p == 1.0


@pytest.mark.parametrize("name", ["number 0", "category 0"])
def test_values_that_go_missing_are_a_change(name: str) -> None:
    window = table(300, 2)
    gone = np.where(np.random.default_rng(3).random(300) < 0.3, np.nan, window.signals[name])
    results = {r.name: r for r in compare(table(400, 1), table(300, 2, **{name: gone}))}
    assert alarms(list(results.values())) == {f"signal {name}"}
    assert "missing" in results[f"signal {name}"].detail
    nothing = np.full(300, np.nan)
    assert drift.scalar_test("x", nothing, nothing).p == 1.0
    assert drift.scalar_test("x", window.signals["number 0"], nothing).p < 1e-6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"noise": 2}, {"predicted values", "predicted deviations", "embedding", "signal size"}),
        ({"only": 1}, {"predicted values", "predicted deviations", "embedding"}),
    ],
    ids=["noise", "larger values"],
)
def test_a_changed_stream_of_values_is_found(
    draw_values: Draw, change: dict[str, int], expected: set[str]
) -> None:
    assert alarms(compare(draw_values(400, 1), draw_values(250, 7, **change))) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"noise": 2}, {"probabilities", "embedding", "signal size"}),
        ({"only": 1}, {"probabilities", "embedding", "predicted labels"}),
    ],
    ids=["noise", "one label only"],
)
def test_a_changed_stream_is_found(draw: Draw, change: dict[str, int], expected: set[str]) -> None:
    assert alarms(compare(draw(400, 1), draw(250, 7, **change))) == expected


def test_a_change_in_one_place_is_named_and_its_size_told(draw: Draw) -> None:
    reference, window = draw(400, 1), draw(300, 2)
    moved = Sample(
        window.answers, window.embedding, {**window.signals, "depth": window.signals["depth"] + 3}
    )
    results = {result.name: result for result in compare(reference, moved)}
    assert alarms(list(results.values())) == {"signal depth"}
    assert results["signal depth"].words == "strongly changed"
    assert "higher" in results["signal depth"].detail
    assert results["signal size"].words == "no change seen"


def test_a_model_without_embedding_is_compared_by_the_rest(draw: Draw) -> None:
    reference, window = draw(300, 1), draw(300, 2)
    results = compare(Sample(reference.answers, None, reference.signals), window)
    assert [result.name for result in results] == [
        "probabilities",
        "predicted labels",
        "signal depth",
        "signal size",
    ]


def test_the_same_window_gives_the_same_report(draw: Draw) -> None:
    assert compare(draw(300, 1), draw(300, 2)) == compare(draw(300, 1), draw(300, 2))

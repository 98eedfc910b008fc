"""Comparing recorded runs: what differs, and the test that fits."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import SMALL, Project, lay_out, module
from scipy import stats

tracking = module("tracking")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """An empty project, which is the working directory; a tracker takes seconds to make."""
    folder, before = tmp_path_factory.mktemp("project"), Path.cwd()
    lay_out(folder)
    yield Project(folder, SMALL)
    os.chdir(before)


def call(*arguments: str) -> dict[str, Any]:
    """`compare` on the command line of this process; the report that it wrote."""
    assert module("__main__").main(["compare", *arguments]) == 0
    return dict(json.loads(Path("reports/compare.json").read_text(encoding="utf-8")))


def record(
    project: Project,
    metrics: dict[str, float],
    losses: pd.DataFrame | None = None,
    **inputs: Any,
) -> str:
    """A run as the pipeline leaves it, without the training: id."""
    params = {"data.kind": "multiclass", "seed": 0, "training.batch_size": 32}
    tags = {"candidate": "network", "data.splits": "same", "code.commit": "a" * 40}
    counts = {"data.rows.train": 500, "data.rows.val": 100, "data.rows.test": 300}
    run = tracking.start(project.settings(), "train", tags=tags | counts)
    run.params({k: inputs.pop(k, v) for k, v in params.items()})
    run.tags(inputs)
    run.metrics(metrics)
    if losses is not None:
        losses.to_parquet("losses.parquet")
        report = {"candidate": "network", "label_scale": inputs.get("scale", 1.0)}
        Path("evaluation.json").write_text(json.dumps(report), encoding="utf-8")
        run.artifacts([Path("losses.parquet"), Path("evaluation.json")], "evaluation")
    run.finish()
    return str(run.id)


def losses(wrong: float, first: int = 0) -> pd.DataFrame:
    """400 test rows, numbered from `first`, of which a network is wrong on a share."""
    number = np.arange(first, first + 400)
    names = pd.Series(number).astype(str)
    keys = {"id": names, "content": "hash " + names, "label": "x"}
    return pd.DataFrame({**keys, "network": (number < wrong * 400).astype(float)})


@pytest.mark.row("E10")
def test_two_runs_differ_in_inputs_and_score(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    other: dict[str, Any] = {"training.batch_size": 8, "code.commit": "b" * 40}
    other["env.python"] = "3.99"
    a = record(project, {"test.log_loss": 0.5}, losses(0.2))
    b = record(project, {"test.log_loss": 0.4}, losses(0.1), **other)
    report = call(a[:12], b)
    inputs = report["tables"]["Inputs that differ"]
    assert inputs.keys() == {"config training.batch_size", "code.commit", "env.python"}
    assert inputs["config training.batch_size"] == {"a": "32", "b": "8"}
    assert inputs["env.python"] == {"a": "none", "b": "3.99"}
    assert report["tables"]["Metrics"]["test.log_loss"]["difference"] == pytest.approx(0.1)
    assert report["test"]["p"] == pytest.approx(stats.binomtest(40, 40).pvalue)
    assert report["verdict"].startswith("a is worse than b: accuracy -0.1000")
    assert "a is worse than b" in capsys.readouterr().out
    page = Path("reports/compare.html").read_text(encoding="utf-8")
    assert "training.batch_size" in page and "a is worse than b" in page
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)


@pytest.mark.row("E10")
def test_only_rows_that_both_judged_are_compared(project: Project) -> None:
    a = record(project, {}, losses(0.2))
    report = call(a, record(project, {}, losses(0.1, first=100)))
    assert report["test"]["num"] == 300
    report = call(a, record(project, {}, losses(0.1, first=1000)))
    assert "no test row was judged by both" in report["verdict"] and report["test"] is None
    report = call(a, record(project, {}))
    assert "has no losses on test rows" in report["verdict"]


A, B = [0.91, 0.93, 0.90, 0.94], [0.88, 0.91, 0.89, 0.90]


def group(project: Project, scores: list[float], splits: str, first: int = 0) -> list[str]:
    """Runs with a seed, the rows that they were scored on, and a score."""
    runs = []
    for seed, score in enumerate(scores, first):
        inputs: dict[str, Any] = {"seed": seed, "data.splits": splits.format(seed)}
        runs.append(record(project, {"test.accuracy": score}, **inputs))
    return runs


@pytest.mark.row("E10", "M6")
def test_groups_are_paired_by_seed_and_corrected_where_rows_overlap(project: Project) -> None:
    a, b = group(project, A, "same"), group(project, B, "same")
    naive = stats.ttest_rel(A, B)
    report = call("--a", *a, "--b", *reversed(b), "--metric", "accuracy")
    assert report["test"]["p"] == pytest.approx(naive.pvalue)
    assert "a is better than b: test.accuracy +0.0250" in report["verdict"]

    # Seeds of the pipeline draw the splits: resamples, not mere seeds.
    a, drawn = group(project, A, "split {}"), group(project, B, "split {}")
    test = call("--a", *a, "--b", *drawn, "--metric", "accuracy")["test"]
    interval = naive.confidence_interval()
    ratio = (test["high"] - test["low"]) / (interval.high - interval.low)
    assert ratio == pytest.approx(np.sqrt((1 / 4 + 300 / 600) / (1 / 4)))
    for other in (b, group(project, B, "split {}", first=2)):
        report = call("--a", *a, "--b", *other, "--metric", "accuracy")
        assert "the same seeds" in report["verdict"] and report["test"] is None


@pytest.mark.row("E10")
def test_what_is_not_a_run_is_told_in_one_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = {
        ("champion", "champion"): "no model is champion yet",
        ("zzz", "zzz"): "no run begins with 'zzz'",
        ("zzz",): "name two runs",
        ("--a", "zzz"): "name two runs",
    }
    for arguments, message in calls.items():
        assert module("__main__").main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err

"""`compare --resamples` and `--seeds`: real trainings, on resamples of the rows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import Project, module
from scipy import stats

resamples, tracking = module("experiments.resamples"), module("tracking")
FAST = ("trainer.max_epochs=4", "trainer.enable_progress_bar=false")


@pytest.fixture
def ready(project: Project) -> Project:
    for verb in ("ingest", "validate", "split"):
        assert project.run(verb) == 0
    return project


def call(*arguments: str) -> dict[str, Any]:
    assert module("__main__").main(["compare", *arguments]) == 0
    return dict(json.loads(Path("reports/compare.json").read_text(encoding="utf-8")))


def trainings(project: Project) -> tuple[Any, list[Any]]:
    client = tracking.client(project.settings())
    (parent,) = client.search_runs(["1"], "tags.`compare.trainings` != ''")
    query = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    return parent, client.search_runs(["1"], query)


@pytest.mark.row("M6")
def test_a_resample_keeps_equal_rows_together_and_splits_nothing_twice(project: Project) -> None:
    settings, rng = project.settings(), np.random.default_rng(1)
    key = settings.data.split.key
    rows = pd.DataFrame({key: rng.integers(0, 300, 600).astype(str), "id": np.arange(600)})
    settings.paths.splits.mkdir(parents=True)
    for name, part in zip(resamples.POOL, np.split(np.arange(600), 3), strict=True):
        rows.iloc[part].to_parquet(settings.paths.splits / f"{name}.parquet")
    for folder, seed in {"one": 7, "two": 7, "three": 8}.items():
        resamples.cut(settings, Path(folder), seed)
    parts = {p.stem: pd.read_parquet(p) for p in Path("one").iterdir()}
    assert sorted(pd.concat(parts.values())["id"]) == list(range(600))
    assert 100 <= len(parts["test"]) <= 140
    keys = {name: set(part[key]) for name, part in parts.items()}
    assert not keys["test"] & (keys["train"] | keys["val"]) and not keys["train"] & keys["val"]
    assert parts["test"].equals(pd.read_parquet("two/test.parquet"))
    assert set(parts["test"]["id"]) != set(pd.read_parquet("three/test.parquet")["id"])


@pytest.mark.row("M6", "E10")
def test_resamples_train_both_sides_and_never_read_the_test_split(ready: Project) -> None:
    test_split = ready.settings().paths.splits / "test.parquet"
    pd.DataFrame({"nothing": [0.0]}).to_parquet(test_split)  # reading it fails
    report = call(*FAST, "--resamples", "3", "--a", "seed=3", "--b", "seed=3 optimizer.lr=1e-9")
    assert "corrected resampled t" in report["verdict"]
    assert report["tables"]["Inputs that differ"].keys() == {"config optimizer.lr"}
    parent, runs = trainings(ready)
    assert len(runs) == 6 and {r.info.status for r in (parent, *runs)} == {"FINISHED"}
    assert sorted(r.data.params["seed"] for r in runs) == ["3", "3", "4", "4", "5", "5"]
    name = f"held_out.{ready.settings().data.goal.metric}"
    scores = [[r.data.metrics[name] for r in runs if r.info.run_name[0] == side] for side in "ab"]
    assert report["test"]["p"] > 1.2 * stats.ttest_rel(*scores).pvalue  # which is too sure
    assert not list(Path(".state").glob("compare-*"))


@pytest.mark.row("M6")
def test_seeds_train_both_sides_on_the_same_rows(ready: Project) -> None:
    metric = "mse" if ready.settings().data.kind == "regression" else "log_loss"
    report = call(*FAST, "--seeds", "2", "--a", "", "--b", "classical", "--metric", metric)
    assert "paired t over seeds" in report["verdict"] and metric in report["verdict"]
    assert all("(classical)" in name for name in report["b"])


@pytest.mark.row("M6")
def test_ctrl_c_leaves_no_files_and_runs_that_say_so(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(settings: Any, candidate: str, run: Any) -> None:
        with run:
            if settings.seed == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(resamples, "train", train)
    arguments = ["compare", "--resamples", "5", "--a", "seed=1", "--b", ""]
    assert module("__main__").main(arguments) == 130
    parent, runs = trainings(ready)
    assert parent.info.status == "KILLED"
    assert sorted(r.info.status for r in runs) == ["FINISHED", "FINISHED", "KILLED"]
    assert not list(Path(".state").glob("compare-*")) and not Path("reports/compare.json").exists()


def test_what_cannot_be_trained_is_one_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = {
        ("--resamples", "1", "--a", "seed=1", "--b", ""): "at least twice",
        ("--resamples", "2", "--a", "seed=1", "--b", "trainer=ddp"): "one device",
        ("--seeds", "2", "--a", "model.nonsense=1", "--b", ""): "do not compose",
        ("--seeds", "2", "--a", "", "--b", "", "--metric", "beauty"): "no metric 'beauty'",
    }
    for arguments, message in calls.items():
        assert module("__main__").main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err

import json
import os
import re
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import SMALL, Project, lay_out, module
from scipy import stats

compare, records, resamples, runs, tracking = (
    module(f"experiments.{n}") for n in ("compare", "records", "resamples", "runs", "tracking")
)
FAST = ("trainer.max_epochs=4", "trainer.enable_progress_bar=false")


def call(*arguments: str) -> dict[str, Any]:
    """`compare` on the command line of this process; the report that it wrote."""
    assert module("__main__").main(["compare", *arguments]) == 0
    return dict(json.loads(Path("reports/compare.json").read_text(encoding="utf-8")))


def classes(settings: Any) -> Any:
    """The same settings for a problem of three classes, whatever the task of this project."""
    accuracy = {"metric": "accuracy", "at_least": 0.5, "at_most": None, "costs": None}
    goal = settings.data.goal.model_copy(update=accuracy)
    data = settings.data.model_copy(
        update={"kind": "multiclass", "labels": ["a", "b", "c"], "goal": goal}
    )
    return settings.model_copy(update={"data": data})


def make(
    project: Project, losses: pd.DataFrame | None = None, scale: float = 1.0, **values: Any
) -> str:
    """A run as the pipeline leaves it, without the training: id."""
    settings = classes(project.settings(*values.pop("overrides", ())))
    run = tracking.start(settings, "train", tags={"candidate": "network"})
    tracking.record_inputs(run, settings)
    run.tags(values.pop("tags", {}))
    run.metrics(values)
    if losses is not None:
        losses.to_parquet("losses.parquet")
        Path("evaluation.json").write_text(
            json.dumps({"candidate": "network", "label_scale": scale})
        )
        run.artifacts([Path("losses.parquet"), Path("evaluation.json")], "evaluation")
    run.finish()
    return str(run.id)


def table(report: dict[str, Any], title: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for t in report["tables"] if t["title"] == title for row in t["rows"]}


@pytest.fixture(scope="module")
def ready_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, before = tmp_path_factory.mktemp("ready"), Path.cwd()
    lay_out(folder)
    project = Project(folder, SMALL)
    for verb in ("ingest", "validate", "split"):
        assert project.run(verb) == 0
    tracking.client(project.settings())  # a fresh tracker takes seconds
    os.chdir(before)
    return folder


@pytest.fixture
def ready(tmp_path: Path, ready_once: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with splits and a tracker, and no run yet; it is the working directory."""
    shutil.copytree(ready_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, SMALL)


def wrong(share: float, n: int = 400, **columns: Any) -> pd.DataFrame:
    """Test rows of which a network is wrong on the first `share`, and a classical model on the last
    tenth.
    """
    rows = np.arange(n)
    losses = {
        "network": (rows < share * n).astype(float),
        "classical": (rows >= 0.9 * n).astype(float),
    }
    return pd.DataFrame({"id": rows.astype(str), **losses, **columns})


@pytest.mark.row("E10")
def test_two_runs_differ_in_configuration_data_code_environment_and_score(
    ready: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    tags = {"code.commit": "b" * 40, "data.rows.train": 17, "env.python": "3.99"}
    a = make(ready, wrong(0.2), **{"test.log_loss": 0.5})
    b = make(
        ready, wrong(0.1), overrides=["training.batch_size=8"], tags=tags, **{"test.log_loss": 0.4}
    )
    report = call(a[:12], b)
    assert table(report, "Configuration") == {"training.batch_size": ["32", "8"]}
    assert table(report, "Data").keys() == {"data.rows.train"} and "code.commit" in table(
        report, "Code"
    )
    assert table(report, "Environment")["env.python"][1] == "3.99"
    assert table(report, "Metrics") == {"test.log_loss": ["0.5000", "0.4000", "+0.1000"]}
    network, classical = report["tests"]
    assert network["p"] == pytest.approx(stats.binomtest(40, 40).pvalue) and network[
        "difference"
    ] == pytest.approx(0.1)
    assert classical["p"] == 1  # the same answers
    assert report["verdict"].startswith("a is worse than b: accuracy -0.1000")
    printed = " ".join(capsys.readouterr().out.split())
    assert "training.batch_size" in printed and "a is worse than b" in printed
    page = Path("reports/compare.html").read_text(encoding="utf-8")
    assert "training.batch_size" in page and "A is worse than b" in page
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)


@pytest.mark.row("E10")
@pytest.mark.parametrize(
    ("losses", "tags", "reason"),
    [
        (None, {}, "has no losses on test rows"),
        (
            wrong(0.1).assign(id=lambda d: "other " + d["id"]),
            {},
            "no test row was judged by both runs",
        ),
        (wrong(0.1), {"data.version": "another"}, "the runs judged different data"),
    ],
)
def test_where_no_test_applies_the_reason_stands_there(
    losses: pd.DataFrame | None, tags: dict[str, str], reason: str, ready: Project
) -> None:
    report = call(make(ready, wrong(0.2)), make(ready, losses, tags=tags))
    assert (
        report["verdict"].startswith("no test applies: ")
        and reason in report["verdict"]
        and report["tests"] == []
    )


@pytest.mark.row("E10")
def test_with_other_data_the_rows_that_both_judged_are_compared(ready: Project) -> None:
    content = [f"sha of {i}" for i in range(400)]
    a, b = wrong(0.2, content=content), wrong(0.1, content=["changed", *content[1:]])
    report = call(make(ready, a), make(ready, b.head(300), tags={"data.version": "another"}))
    assert report["tests"][0]["num"] == 299 and report["tests"][0]["difference"] == pytest.approx(
        40 / 299
    )


@pytest.mark.row("E10")
def test_losses_of_values_are_brought_to_one_unit(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = np.random.default_rng(0).exponential(size=400)
    one, other = (
        pd.DataFrame({"id": np.arange(400).astype(str), "network": errors / s**2})
        for s in (1.0, 2.0)
    )
    kind = {"data.kind": "regression", "data.version": "x"}
    a, b = (
        {"id": str(i), "name": "", "model": "network", "metrics": {}, "packages": {}}
        for i in range(2)
    )
    first = records.Record(**a, params=kind, tags=kind, losses=one, scale=1.0)
    second = records.Record(**b, params=kind, tags=kind, losses=other, scale=2.0)
    monkeypatch.setattr(runs, "read", lambda _, name: {"a": first, "b": second}[name])
    found = runs.compare_runs(ready.settings(), ["a"], ["b"], None)
    assert (
        found["tests"][0]["difference"] == pytest.approx(0)
        and "cannot be told apart" in found["verdict"]
    )


ACCURACY = ("--metric", "accuracy")
A, B = [0.91, 0.93, 0.90, 0.94], [0.88, 0.91, 0.89, 0.90]


def group(
    project: Project, scores: list[float], seeds: range, rows: list[str] | None = None
) -> list[str]:
    """Runs with a seed, the rows that they were scored on, and a score."""
    counts = {"data.rows.train": 500, "data.rows.val": 100, "data.rows.test": 300}
    made = []
    for i, seed in enumerate(seeds):
        run = tracking.start(
            project.settings(), "train", tags={"data.splits": rows[i] if rows else "same", **counts}
        )
        run.params({"seed": seed, "data.kind": "multiclass"})
        run.metrics({"test.accuracy": scores[i], "test.log_loss": 1 - scores[i]})
        made.append(str(run.id))
    return made


@pytest.mark.row("E10")
def test_groups_with_the_same_seeds_are_paired_by_them(ready: Project) -> None:
    a, b = group(ready, A, range(4)), group(ready, B, range(4))
    wanted = stats.ttest_rel(A, B)
    report = call("--a", *a, "--b", *reversed(b), *ACCURACY)
    (found,) = report["tests"]
    assert found["p"] == pytest.approx(wanted.pvalue) and "paired t over seeds" in report["verdict"]
    assert -found["high"] == pytest.approx(wanted.confidence_interval().low)
    assert "a is better than b: test.accuracy +0.0250" in report["verdict"]
    assert (
        "a is better than b: test.log_loss -0.0250"
        in call("--a", *a, "--b", *b, "--metric", "log_loss")["verdict"]
    )


@pytest.mark.row("E10", "M6")
def test_groups_take_welchs_test_or_the_corrected_one_where_seeds_say_so(ready: Project) -> None:
    (welch,) = call(
        "--a", *group(ready, A, range(4)), "--b", *group(ready, B[:3], range(5, 8)), *ACCURACY
    )["tests"]
    wanted = stats.ttest_ind(A, B[:3], equal_var=False)
    assert welch["p"] == pytest.approx(wanted.pvalue) and "Welch" in welch["test"]
    assert -welch["low"] == pytest.approx(wanted.confidence_interval().high)

    drawn = [
        f"split {i}" for i in range(4)
    ]  # seeds of the pipeline draw the splits: resamples, not mere seeds
    (corrected,) = call(
        "--a",
        *group(ready, A, range(4), drawn),
        "--b",
        *group(ready, B, range(4), drawn),
        *ACCURACY,
    )["tests"]
    assert (
        corrected["test"] == "corrected resampled t"
        and corrected["p"] > 1.5 * stats.ttest_rel(A, B).pvalue
    )
    half, naive = corrected["high"] - corrected["low"], stats.ttest_rel(A, B).confidence_interval()
    assert half / (naive.high - naive.low) == pytest.approx(np.sqrt((1 / 4 + 300 / 600) / (1 / 4)))
    report = call(
        "--a", *group(ready, A, range(4), drawn), "--b", *group(ready, B, range(4)), *ACCURACY
    )
    assert "scored on different rows" in report["verdict"] and report["tests"] == []


@pytest.mark.row("E10")
def test_what_is_not_a_run_is_told_in_one_line(
    ready: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    one = make(ready)
    calls = {
        (one, "champion"): "no model is champion yet",
        (one, "zzz"): "no run begins with 'zzz'",
        (one, "%"): "is not a run",
        (one,): "name two runs",
        ("--a", one): "name two runs",
        ("--resamples", "1", "--a", "seed=1", "--b", ""): "at least twice",
        ("--resamples", "2", "--a", "seed=1", "--b", "trainer=ddp"): "one device",
        ("--resamples", "2", "--a", "model.nonsense=1", "--b", ""): "do not compose",
        (
            "--resamples",
            "2",
            "--a",
            "seed=1",
            "--b",
            "",
            "--metric",
            "beauty",
        ): "no metric 'beauty'",
    }
    for arguments, message in calls.items():
        assert module("__main__").main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.row("M6")
def test_a_resample_keeps_equal_rows_together_and_splits_nothing_twice(ready: Project) -> None:
    settings, rng = ready.settings(), np.random.default_rng(1)
    rows = pd.DataFrame(
        {settings.data.split.key: rng.integers(0, 300, 500).astype(str), "id": np.arange(500)}
    )
    learned, held = resamples.cut(settings, rows, [7, 0], Path("one"))
    assert (learned, held) == resamples.cut(settings, rows, [7, 0], Path("two"))
    resamples.cut(settings, rows, [7, 1], Path("three"))
    parts = {p.stem: pd.read_parquet(p) for p in Path("one").iterdir()}
    ids = pd.concat(parts.values())["id"]
    assert sorted(ids) == list(range(500)) and len(parts["test"]) == held and 80 <= held <= 120
    keys = {name: set(part[settings.data.split.key]) for name, part in parts.items()}
    assert not keys["test"] & (keys["train"] | keys["val"]) and not keys["train"] & keys["val"]
    assert parts["test"].equals(pd.read_parquet("two/test.parquet"))
    assert set(parts["test"]["id"]) != set(pd.read_parquet("three/test.parquet")["id"])


def children(project: Project, report: str) -> tuple[Any, list[Any]]:
    made = tracking.client(project.settings())
    experiment = made.get_experiment_by_name(project.settings().tracking.experiment).experiment_id
    (parent,) = made.search_runs([experiment], f"tags.`compare.mode` = '{report}'")
    return parent, made.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )


@pytest.mark.slow
@pytest.mark.row("M6", "E10")
def test_resamples_train_both_sides_and_never_read_the_test_split(
    ready: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module("logs").get("compare"), "propagate", True
    )  # else caplog sees nothing
    pd.DataFrame({"nothing": [0.0]}).to_parquet(
        ready.settings().paths.splits / "test.parquet"
    )  # reading it fails
    report = call(*FAST, "--resamples", "3", "--a", "seed=3", "--b", "seed=3 optimizer.lr=1e-9")
    (found,) = report["tests"]
    a, b = (np.array(found["scores"][side]) for side in ("a", "b"))
    assert (
        len(a) == 3
        and len(set(a)) > 1
        and found["test"] == "corrected resampled t"
        and a.mean() > b.mean()
    )
    assert found["p"] > 1.2 * stats.ttest_rel(a, b).pvalue  # the naive test is surer than it may be
    parent, runs = children(ready, "resamples")
    assert len(runs) == 6 and {r.info.status for r in (parent, *runs)} == {"FINISHED"}
    same = [r for r in runs if r.data.tags["compare.round"] == "1"]
    assert {r.data.params["seed"] for r in same} == {"4"}
    assert {r.data.tags["compare.side"] for r in same} == {"a", "b"}
    assert parent.data.tags["compare.verdict"] == report["verdict"]
    assert "the other 2 take about" in caplog.text
    assert not list(Path(".state").glob("compare-*"))


@pytest.mark.slow
@pytest.mark.row("M6")
def test_seeds_train_both_sides_on_the_same_rows(ready: Project) -> None:
    metric = "mse" if ready.settings().data.kind == "regression" else "log_loss"
    report = call(*FAST, "--seeds", "2", "--a", "", "--b", "classical", "--metric", metric)
    (found,) = report["tests"]
    assert found["test"] == "paired t over seeds" and report["b"][0]["model"] == "classical"
    network, _ = found["scores"].values()
    assert network[0] != network[1] and metric in report["verdict"]


@pytest.mark.row("M6")
def test_ctrl_c_leaves_no_files_and_runs_that_say_so(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = ready.settings().data.goal.metric
    scores = iter([{metric: 0.9}, {metric: 0.8}])

    def trained(*_: Any) -> dict[str, float]:
        found = next(scores, None)
        if found is None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(resamples, "evaluate_one", trained)
    assert (
        module("__main__").main(["compare", "--resamples", "5", "--a", "seed=1", "--b", ""]) == 130
    )
    parent, runs = children(ready, "resamples")
    assert parent.info.status == "KILLED" and sorted(r.info.status for r in runs) == [
        "FINISHED",
        "FINISHED",
        "KILLED",
    ]
    assert not list(Path(".state").glob("compare-*")) and not Path("reports/compare.json").exists()


@pytest.mark.slow
@pytest.mark.row("E10")
def test_the_champion_and_a_baseline_are_compared_on_the_rows_of_the_evaluation(
    trained: Project,
) -> None:
    settings = trained.settings()
    assert module("packaging.promote").run(settings, Namespace(override="only for this test")) == 0
    made = module("provenance").read_json(settings.paths.reports / "run.json")["runs"]
    report = call("champion", made["constant"][:10])
    (found,) = report["tests"]
    assert found["b"] == "constant" and found["num"] == len(
        module("data.datamodule").load(settings, "test")
    )
    assert "a is better than b" in report["verdict"]
    assert table(report, "Configuration") == table(report, "Data") == table(report, "Code") == {}
    assert any(name.startswith("train.") for name in table(report, "Metrics"))

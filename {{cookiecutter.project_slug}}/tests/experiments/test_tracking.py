import shutil
from pathlib import Path

import pytest
from harness import Project, module

tracking = module("experiments.tracking")


def run_of(project: Project):  # type: ignore[no-untyped-def]
    run_id = module("provenance").read_json(project.settings().paths.reports / tracking.RUN_FILE)["run_id"]
    return tracking.client(project.settings()).get_run(run_id)


@pytest.mark.row("E1")
def test_one_run_tells_code_data_environment_parameters_and_metrics(trained: Project) -> None:
    run = run_of(trained)
    assert {
        "code.commit",
        "code.dirty",
        "data.version",
        "env.packages_sha256",
        "env.python",
        "env.hardware",
        "env.lock_sha256",
        "command",
    } <= set(run.data.tags)
    assert run.data.params["optimizer.lr"] == str(trained.settings().optimizer["lr"])
    score = score_of(trained)
    wanted = {f"train.{score}", f"val.{score}", f"test.{score}", "gate.M10.calibration", "package.parity"}
    assert wanted <= set(run.data.metrics)
    files = {
        f.path
        for folder in ("config", "environment", "code", "data")
        for f in tracking.client(trained.settings()).list_artifacts(run.info.run_id, folder)
    }
    assert {"config/params.yaml", "environment/packages.txt", "code/uncommitted.diff", "data/validation.json"} <= files
    assert run.info.status == "FINISHED"


def score_of(trained: Project) -> str:
    return str(module("settings").SCORE[trained.settings().data.kind])


@pytest.mark.row("M2")
def test_baselines_are_runs_of_their_own(trained: Project) -> None:
    run = run_of(trained)
    found = tracking.client(trained.settings()).search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    )
    metrics = {
        r.data.tags["candidate"]: r.data.metrics[f"val.{score_of(trained)}"]
        for r in found
        if "candidate" in r.data.tags
    }
    assert set(metrics) == {"constant", "heuristic", "classical"} and metrics["constant"] < min(
        metrics["heuristic"], metrics["classical"]
    )


def test_judging_the_same_model_again_is_a_child_run(trained: Project) -> None:
    parent = run_of(trained).info.run_id
    again = tracking.current(trained.settings(), "evaluate")
    assert again.id != parent and again.client.get_run(again.id).data.tags["mlflow.parentRunId"] == parent
    assert tracking.current(trained.settings(), "another").id == parent


def test_an_unknown_run_is_restored_once_from_the_reports(trained: Project) -> None:
    lost = run_of(trained).info.run_id
    for store in Path().glob("mlflow.db*"):
        store.unlink()
    shutil.rmtree(".state")
    restored = tracking.current(trained.settings("tracking.uri=sqlite:///other.db"), "evaluate")
    data = restored.client.get_run(restored.id).data
    assert (
        data.tags["restored"] == "true"
        and data.tags["restored.from"] == lost
        and data.metrics[f"network.val.{score_of(trained)}"] < 1
    )
    assert tracking.current(trained.settings("tracking.uri=sqlite:///other.db"), "package").id == restored.id


def test_long_parameters_are_named_not_cut(trained: Project) -> None:
    run = tracking.start(trained.settings(), "long")
    run.params({"short": 1, "long": "x" * 10_000})
    data = run.client.get_run(run.id).data
    assert data.params == {"short": "1"} and data.tags["params.in_config_only"] == "long"

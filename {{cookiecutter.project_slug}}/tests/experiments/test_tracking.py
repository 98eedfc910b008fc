import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PACKAGE, Project, module

tracking = module("tracking")
OPEN_A_RUN = """
import sys, time
from importlib import import_module
from pathlib import Path
import mlflow
package, name = sys.argv[1:]
tracking, settings = import_module(f"{package}.experiments.tracking"), import_module(f"{package}.params").load([])
Path(f"{name}.ready").touch()
while not Path("go").exists():
    time.sleep(0.001)
tracking.client(settings)
with tracking.start(settings, name) as run:
    run.metrics({"number": float(name)})
    print(run.id)
tracking.deliver(settings, must=True)
"""


def run_of(project: Project) -> Any:
    settings = project.settings()
    tracking.deliver(settings, must=True)
    key = module("provenance").read_json(settings.paths.reports / tracking.RUN_FILE)["record"]
    return tracking.find_record(tracking.client(settings), settings.tracking.experiment, key)


def files_of(run_id: str, settings: Any, *folders: str) -> set[str]:
    client = tracking.client(settings)
    return {f.path for folder in folders for f in client.list_artifacts(run_id, folder)}


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
    wanted = {
        f"train.{score}",
        f"val.{score}",
        f"test.{score}",
        "gate.M10.calibration",
        "package.parity",
    }
    assert wanted <= set(run.data.metrics)
    files = files_of(run.info.run_id, trained.settings(), "config", "environment", "code", "data")
    assert {
        "config/params.yaml",
        "environment/packages.txt",
        "code/uncommitted.diff",
        "data/validation.json",
    } <= files
    assert run.info.status == "FINISHED"


def score_of(trained: Project) -> str:
    return str(module("settings").SCORE[trained.settings().data.kind])


@pytest.mark.row("E3")
def test_a_training_leaves_checkpoints_gradients_throughput_machine_and_extreme_rows(
    trained: Project,
) -> None:
    run, settings = run_of(trained), trained.settings()
    client = tracking.client(settings)
    for name in (
        "train/gradient_norm",
        "train/gradient_norm_max",
        "train/samples_per_second",
        "train/data_wait",
    ):
        history = client.get_metric_history(run.info.run_id, name)
        assert len(history) == settings.trainer.max_epochs and min(m.value for m in history) > 0, (
            name
        )
    measured = {
        name.removeprefix("system/") for name in run.data.metrics if name.startswith("system/")
    }
    parts = ("cpu_utilization", "system_memory_usage", "disk_usage", "network_receive")
    assert all(any(name.startswith(part) for name in measured) for part in parts), measured
    files = files_of(run.info.run_id, settings, "model", "evaluation")
    assert {"model/best.ckpt", "model/last.ckpt"} <= files
    assert {"evaluation/M5_hardest.png", "evaluation/M5_easiest.png"} <= files


@pytest.mark.row("M2", "E7")
def test_baselines_are_runs_of_their_own_with_charts(trained: Project) -> None:
    run, settings = run_of(trained), trained.settings()
    above = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    found = tracking.client(settings).search_runs([run.info.experiment_id], above)
    runs = {r.data.tags["candidate"]: r for r in found if "candidate" in r.data.tags}
    assert {*runs} == {"constant", "heuristic", "classical"}
    score = f"val.{score_of(trained)}"
    values = {name: r.data.metrics[score] for name, r in runs.items()}
    assert values["constant"] < min(values["heuristic"], values["classical"])
    kind = ("predicted",) if settings.data.kind == "regression" else ("confusion", "roc")
    charts = {f"charts/{name}.png" for name in ("distribution", *kind)}
    for name, baseline in runs.items():
        more = {"model/classical.skops", "charts/weights.png"} if name == "classical" else set()
        assert files_of(baseline.info.run_id, settings, "charts", "model") == charts | more


def test_judging_the_same_model_again_is_a_child_run(trained: Project) -> None:
    parent, settings = run_of(trained).info.run_id, trained.settings()
    with tracking.current(settings, "evaluate") as again:
        again.tags({"said": "again"})
    found = again.client.get_run(again.id)
    assert again.id != parent and found.data.tags["mlflow.parentRunId"] == parent
    with tracking.current(settings, "another") as same:
        same.tags({"said": "more"})
    assert run_of(trained).data.tags["said"] == "more" and found.data.tags["said"] == "again"


def test_an_unknown_run_is_restored_once_from_the_reports(trained: Project) -> None:
    lost, settings = (
        run_of(trained).info.run_id,
        trained.settings("tracking.uri=sqlite:///other.db"),
    )
    shutil.rmtree(".state")
    with tracking.current(settings, "evaluate") as restored:
        first = restored.id
    data = tracking.client(settings).get_run(first).data
    assert data.tags["restored"] == "true" and data.tags["restored.from"] == lost
    assert data.metrics[f"network.val.{score_of(trained)}"] < 1
    with tracking.current(settings, "package") as known:
        assert known.id == first


@pytest.mark.row("E1")
def test_long_parameters_are_named_and_stand_whole_in_the_configuration(trained: Project) -> None:
    owner = "x" * 10_000
    trained.run("train", f"project.owner={owner}", "trainer.max_epochs=1")
    run, settings = (
        run_of(trained),
        trained.settings(f"project.owner={owner}", "trainer.max_epochs=1"),
    )
    wanted = {k: str(v) for k, v in tracking.flatten(settings.model_dump(mode="json")).items()}
    assert wanted.pop("project.owner") == owner
    assert run.data.params == wanted and run.data.tags["params.in_config_only"] == "project.owner"
    path = tracking.client(settings).download_artifacts(
        run.info.run_id, "config/params.yaml", str(Path.cwd())
    )
    assert (
        module("settings").parse(yaml.safe_load(Path(path).read_text(encoding="utf-8"))) == settings
    )


@pytest.mark.slow
@pytest.mark.row("E11")
def test_four_processes_at_once_make_one_new_store(project: Project) -> None:
    names = [str(i) for i in range(4)]
    command, pipe = [sys.executable, "-c", OPEN_A_RUN, PACKAGE], subprocess.PIPE
    started = [
        subprocess.Popen([*command, name], stdout=pipe, stderr=pipe, text=True) for name in names
    ]
    deadline = time.monotonic() + 120
    while not all(Path(f"{name}.ready").exists() for name in names):
        assert time.monotonic() < deadline and all(process.poll() is None for process in started)
        time.sleep(0.01)
    assert not Path("mlflow.db").exists()
    Path("go").touch()
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0] * 4, said
    settings = project.settings()
    client = tracking.client(settings)
    experiment = client.get_experiment_by_name(settings.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(r.info.run_id for r in runs) == sorted(out.split()[-1] for out, _ in said)
    assert {(r.info.run_name, r.data.metrics["number"], r.info.status) for r in runs} == {
        (name, float(name), "FINISHED") for name in names
    }

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PACKAGE, Project, module

tracking = module("tracking")


def run_of(project: Project) -> Any:
    settings = project.settings()
    key = module("provenance").read_json(settings.paths.reports / tracking.RUN_FILE)["record"]
    return tracking.find_record(tracking.client(settings), settings.tracking.experiment, key)


def files_of(run_id: str, settings: Any, *folders: str) -> set[str]:
    client = tracking.client(settings)
    return {f.path for folder in folders for f in client.list_artifacts(run_id, folder)}


def score_of(trained: Project) -> str:
    return str(module("settings").SCORE[trained.settings().data.kind])


@pytest.mark.row("E1")
def test_one_run_tells_code_data_environment_parameters_and_metrics(trained: Project) -> None:
    run = run_of(trained)
    tags = (
        "code.commit code.dirty code.left_out data.version data.splits dvc.data/splits command host"
    )
    machine = "packages_sha256 python platform processor cores gpus lock_sha256"
    wanted = {*tags.split(), *(f"env.{name}" for name in machine.split())}
    assert wanted <= set(run.data.tags) and run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == str(trained.settings().optimizer["lr"])
    scores = {f"{split}.{score_of(trained)}" for split in ("train", "val", "test")}
    assert scores | {"gate.M10.calibration", "package.parity"} <= set(run.data.metrics)
    files = files_of(run.info.run_id, trained.settings(), "config", "environment", "code", "data")
    assert {
        "config/params.yaml",
        "environment/packages.txt",
        "code/uncommitted.diff",
        "data/validation.json",
    } <= files


@pytest.mark.row("E1")
def test_the_page_of_a_run_says_at_a_glance_what_it_was(trained: Project) -> None:
    run, settings = run_of(trained), trained.settings()
    client = tracking.client(settings)
    above = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    runs = [run, *client.search_runs([run.info.experiment_id], above)]
    names = [one.info.run_name for one in runs]
    assert len({*names}) == len(runs) >= 4 and all(settings.data.name in name for name in names)
    network = settings.model["_target_"].rpartition(".")[2]
    metric = settings.data.goal.metric
    test = run.data.metrics[f"test.{metric}"]
    assert network in names[0] and f"test {metric} {test:.4f}, gate " in names[0]
    splits = settings.paths.splits.as_posix()
    for one in runs:
        tags, [given] = one.data.tags, one.inputs.dataset_inputs
        data = (settings.data.name, tags[f"dvc.{splits}"])
        assert (given.dataset.name, given.dataset.digest) == data
        assert tags["mlflow.source.name"].startswith(f"python -m {PACKAGE}")
        rows, note = tags["data.rows.train"], tags["mlflow.note.content"]
        assert f", {rows} training rows, code of commit `" in note
        assert "To have it again: `python -m" in note
    found = module("experiments.compare").find_run(settings, run.data.tags["record"])
    assert found.info.run_id == run.info.run_id  # by the key that `reproduce` is told


ODD = ["Größe (cm)", "a//b", "../x", "a/../b", ".", "%", "<5 & ok", "a\n", "/a"]
ODD += ["x" * 300, "ö" * 130]


@pytest.mark.row("E1")
def test_an_odd_name_takes_nothing_else_from_a_run(trained: Project) -> None:
    columns = {f"c{i}": {"low": i} for i in range(300)}
    with tracking.start(trained.settings(), "odd names") as run:
        odd = dict.fromkeys(ODD, 0)
        run.params({**odd, "columns": columns, "last": "one"})
        run.metrics({name: float(i) for i, name in enumerate([*ODD, "plain"])}, "val/", step=3)
        run.tags({**dict.fromkeys(ODD, "odd"), "last": "one", "long": "x" * 9000})
    data = run.client.get_run(run.id).data
    # Whole in config/params.yaml, as long values are.
    assert len(data.params) == 301 and data.params["columns.c299.low"] == "299"
    # Under a name that says which it was.
    values = [value for name, value in data.metrics.items() if not name.startswith("system/")]
    assert sorted(values) == [float(i) for i in range(len(ODD) + 1)]
    assert data.metrics["val/plain"] == len(ODD) and "val_Gr__e _cm_-" in " ".join(data.metrics)
    assert [*data.tags.values()].count("odd") == len(ODD) and data.tags["last"] == "one"
    assert data.tags["long"] == "x" * tracking.MAX_TAG


def test_copies_of_read_only_files_can_be_replaced(project: Project) -> None:
    """DVC's links lead to such files; MLflow copies their rights."""
    folder = Path("linked")
    folder.mkdir()
    with tracking.start(project.settings(), "a run") as run:
        for text in ("one", "two"):
            (folder / "file.txt").unlink(missing_ok=True)
            (folder / "file.txt").write_text(text, encoding="utf-8")
            (folder / "file.txt").chmod(0o444)
            run.artifacts([folder, folder / "file.txt"], "some/where")
            place = module("store").artifact_folder(run.client.get_run(run.id))
            copy = place / "some/where/file.txt"
            assert copy.read_text(encoding="utf-8") == text and copy.stat().st_mode & 0o200


@pytest.mark.row("E3")
def test_a_training_leaves_checkpoints_gradients_throughput_and_machine(trained: Project) -> None:
    run, settings = run_of(trained), trained.settings()
    client = tracking.client(settings)
    for name in ("train/gradient_norm", "train/samples_per_second"):
        history = client.get_metric_history(run.info.run_id, name)
        assert len(history) == settings.trainer.max_epochs and min(m.value for m in history) > 0
    measured = " ".join(name for name in run.data.metrics if name.startswith("system/"))
    for part in ("cpu_utilization", "system_memory_usage", "disk_usage", "network_receive"):
        assert f"system/{part}" in measured
    files = files_of(run.info.run_id, settings, "model")
    assert {"model/best.ckpt", "model/last.ckpt"} <= files


@pytest.mark.row("M2")
def test_baselines_are_runs_of_their_own(trained: Project) -> None:
    run, settings = run_of(trained), trained.settings()
    above = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    found = tracking.client(settings).search_runs([run.info.experiment_id], above)
    runs = {r.data.tags["candidate"]: r for r in found if "candidate" in r.data.tags}
    assert {*runs} == {"constant", "heuristic", "classical"}
    score = f"val.{score_of(trained)}"
    values = {name: r.data.metrics[score] for name, r in runs.items()}
    assert values["constant"] < min(values["heuristic"], values["classical"])
    for name, baseline in runs.items():
        files = files_of(baseline.info.run_id, settings, "model")
        assert ("model/classical.skops" in files) == (name == "classical")


def test_judging_the_same_model_again_is_a_child_run_that_ends(trained: Project) -> None:
    parent, settings = run_of(trained).info.run_id, trained.settings()
    with tracking.current(settings, "evaluate") as again:
        again.tags({"said": "again"})
    run = again.client.get_run(again.id)
    assert again.id != parent and run.data.tags["mlflow.parentRunId"] == parent
    assert run.info.status == "FINISHED"
    with tracking.current(settings, "another") as same:
        same.tags({"said": "more"})
    assert run_of(trained).data.tags["said"] == "more" and run.data.tags["said"] == "again"


def test_an_unknown_run_is_restored_once_from_the_reports(trained: Project) -> None:
    lost, settings = run_of(trained), trained.settings("tracking.uri=sqlite:///other.db")
    with tracking.current(settings, "evaluate") as restored:
        first = restored.id
    data = tracking.client(settings).get_run(first).data
    assert data.tags["restored"] == "true" and data.tags["restored.from"] == lost.info.run_id
    assert data.metrics[f"network.val.{score_of(trained)}"] < 1
    with tracking.current(settings, "package") as known:
        assert known.id == first


@pytest.mark.row("E1")
def test_a_long_parameter_stands_whole_in_the_configuration(trained: Project) -> None:
    settings = trained.settings(f"project.owner={'x' * 10_000}")
    with tracking.start(settings, "long") as run:
        tracking.record_inputs(run, settings)
    wanted = {k: str(v) for k, v in tracking.flatten(settings.model_dump(mode="json")).items()}
    assert set(wanted) - set(run.client.get_run(run.id).data.params) == {"project.owner"}
    path = run.client.download_artifacts(run.id, "config/params.yaml", str(Path.cwd()))
    text = Path(path).read_text(encoding="utf-8")
    assert module("settings").parse(yaml.safe_load(text)) == settings


def test_a_run_whose_process_is_gone_is_killed_and_may_go_on(trained: Project) -> None:
    code = f"""
from {PACKAGE} import params, tracking
print(tracking.start(params.load([]), "a run").key)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    settings, key = trained.settings(), done.stdout.strip()
    tracking.start(settings, "another").finish()
    run = tracking.attach(settings, key)
    assert run.client.get_run(run.id).info.status == "KILLED"
    with tracking.start(settings, "a run", key=key) as again:
        assert again.resumed and again.id == run.id
        assert run.client.get_run(run.id).info.status == "RUNNING"
    assert run.client.get_run(run.id).info.status == "FINISHED"


def test_what_ends_a_run_is_its_status(trained: Project) -> None:
    endings: dict[type[BaseException], str] = {ValueError: "FAILED", KeyboardInterrupt: "KILLED"}
    for error, status in endings.items():
        with pytest.raises(error), tracking.start(trained.settings(), "a run") as run:
            raise error
        ended = run.client.get_run(run.id)
        assert ended.info.status == status
        assert {"FAILED": "failed", "KILLED": "interrupted"}[status] in ended.info.run_name

"""What a run records of its code, data and machine, and that `reproduce` gets the same metrics from
that.
"""

import shutil
import subprocess
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from harness import Project, dvc, module

inputs, reproduce, tracking = (
    module(f"experiments.{n}") for n in ("inputs", "reproduce", "tracking")
)


def git(*arguments: str, cwd: Path | None = None) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


@pytest.fixture
def repository(project: Project) -> Project:
    """The project with one commit."""
    git("init", "--quiet")
    Path("package").mkdir()
    Path("package/module.py").write_text("one = 1\n", encoding="utf-8")
    Path("package/gone.py").touch()
    Path(".gitignore").write_text(
        "ignored\n/data\n/artifacts\n/reports\n.state\nlogs\nmlruns\nmlflow.db*\n", encoding="utf-8"
    )
    git("add", "--all")
    git("commit", "--quiet", "-m", "first")
    return project


def tree(folder: Path) -> dict[str, bytes]:
    files = git("ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=folder).split(
        "\0"
    )[:-1]
    return {name: (folder / name).read_bytes() for name in files if (folder / name).is_file()}


@pytest.mark.row("E1", "E2")
def test_the_patch_makes_the_commit_the_working_tree_again(
    repository: Project, tmp_path: Path
) -> None:
    """Edits, new files of any content, removals and what is only staged; the user's own index is
    not touched.
    """
    Path("package/module.py").write_bytes("one = 2\n\n  \nname = 'ü'\r\n".encode("latin-1"))
    Path("package/new.py").write_text("two = 2  # ü", encoding="utf-8")
    Path("package/we ird*[x].bin").write_bytes(bytes(range(256)) * 10)
    Path("package/empty.py").touch()
    Path("package/gone.py").unlink()
    Path("ignored").touch()
    Path("package/staged.py").write_text("three = 3\n", encoding="utf-8")
    git("add", "package/staged.py")
    git("config", "diff.noprefix", "true")
    status, objects = git("status", "--porcelain"), sorted(Path(".git/objects").rglob("*"))
    patch, left = inputs.patch()
    assert left == [] and git("status", "--porcelain") == status
    assert sorted(Path(".git/objects").rglob("*")) == objects
    other = tmp_path / ".state" / "other"
    git("worktree", "add", "--detach", "--quiet", str(other), "HEAD")
    (tmp_path / ".state" / "patch").write_bytes(patch)
    git("apply", "--whitespace=nowarn", "../patch", cwd=other)
    assert tree(other) == tree(tmp_path)


def test_a_clean_tree_and_a_folder_without_git_have_no_patch(repository: Project) -> None:
    assert inputs.patch() == (b"", [])
    shutil.rmtree(".git")
    assert inputs.patch() == (b"", [])


def test_data_in_the_wrong_place_is_named_and_left_out(
    repository: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MAX_PATCH", 1000)
    Path("small.py").write_text("four = 4\n", encoding="utf-8")
    Path("large.csv").write_text("x" * 1001, encoding="utf-8")
    patch, left = inputs.patch()
    assert b"small.py" in patch and b"large.csv" not in patch and left == ["large.csv"]
    Path("package/module.py").write_text(
        "\n".join(f"x{i} = {i}" for i in range(1000)), encoding="utf-8"
    )
    assert inputs.patch() == (b"", ["all of it, 0 MB"])


def test_the_data_hash_is_that_of_dvc(repository: Project) -> None:
    dvc("init", "--quiet", check=True)
    for name in ("a b/ü.txt", "a/z", "a.txt", "Z"):
        path = Path("some/folder") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    for path in (Path("some/folder"), Path("some/one")):
        if not path.exists():
            path.write_text("one", encoding="utf-8")
        dvc("add", str(path), check=True)
        assert yaml.safe_load(Path(f"{path}.dvc").read_text())["outs"][0]["md5"] == inputs.dvc_hash(
            path
        )


def ready(project: Project, trained_once: Path) -> None:
    """The data of the trained project, in DVC's cache as its pipeline would leave it."""
    shutil.copytree(trained_once / "data", "data", dirs_exist_ok=True)
    dvc("init", "--quiet", check=True)
    for name in ("raw", "splits"):
        shutil.copytree(getattr(project.settings().paths, name), f"stored/{name}")
        dvc("add", f"stored/{name}", check=True)
    shutil.rmtree("stored")
    git("add", "--all")
    git("commit", "--quiet", "-m", "second")


def start(project: Project, name: str) -> int:
    return int(reproduce.run(None, Namespace(overrides=[name], keep=False)))


@pytest.mark.slow
@pytest.mark.row("E1", "E2", "T3")
def test_a_run_is_had_again_after_code_data_and_configuration_changed(
    repository: Project, trained_once: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ready(repository, trained_once)
    settings = repository.settings("trainer.max_epochs=2", "seed=11")
    module("training.train").train(settings)
    tracking.deliver(settings, must=True)
    client, report = tracking.client(settings), settings.paths.reports / tracking.RUN_FILE
    key = module("provenance").read_json(report)["record"]
    run = tracking.find_record(client, settings.tracking.experiment, key)
    run_id, tags = run.info.run_id, run.data.tags
    assert (
        tags["dvc.data/splits"] == inputs.dvc_hash(settings.paths.splits)
        and tags["code.left_out"] == "none"
    )
    assert all(
        tags[f"env.{name}"]
        for name in ("cpu", "cores", "memory_gb", "gpus", "python", "lock_sha256")
    )
    assert all(tags[name] for name in ("mlflow.user", "host", "command"))
    recorded = yaml.safe_load(
        Path(client.download_artifacts(run_id, "config/params.yaml")).read_text(encoding="utf-8")
    )
    assert module("settings").parse(recorded) == settings  # not what params.yaml says

    for split in settings.paths.splits.glob("*.parquet"):
        split.unlink()
    shutil.rmtree("configs")
    git("add", "--all")
    git("commit", "--quiet", "-m", "third")
    before = (tree(Path()), sorted(Path("mlruns").rglob("*")), len(client.search_runs(["1"])))
    assert start(repository, run_id[:12]) == 0
    shown = capfd.readouterr().out
    assert f"train.{module('settings').SCORE[settings.data.kind]}"[:10] in shown
    assert before == (
        tree(Path()),
        sorted(Path("mlruns").rglob("*")),
        len(client.search_runs(["1"])),
    )
    assert len(git("worktree", "list").splitlines()) == 1 and not list(
        Path(".state").glob("reproduce-*")
    )

    baseline = client.search_runs(["1"], "tags.candidate = 'classical'")[0].info.run_id
    found = reproduce.find(settings, baseline)
    assert [r.info.run_id for r in found] == [baseline, run_id]  # it is had again by that training
    shutil.rmtree(".dvc/cache")
    with pytest.raises(ValueError, match="is in neither the cache nor the remote"):
        start(repository, run_id)
    assert len(git("worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "tags", "config", "said"),
    [
        ("FINISHED", {"code.commit": "none"}, True, "there was no git commit yet"),
        (
            "FINISHED",
            {"code.commit": "0" * 40},
            True,
            "commit 00000000 of run .* is not in this repository",
        ),
        ("FAILED", {}, True, "it is FAILED, and only a finished run can"),
        ("FINISHED", {"restored": "true"}, True, "only trainings record all of their inputs"),
        ("FINISHED", {}, False, "only trainings record all of their inputs"),
        (
            "FINISHED",
            {"candidate": ""},
            True,
            "only trainings record all of their inputs",
        ),  # a search
    ],
)
def test_what_cannot_be_had_again_is_one_line(
    status: str,
    tags: dict[str, str],
    config: bool,
    said: str,
    repository: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = SimpleNamespace(
        info=SimpleNamespace(run_id="a" * 32, run_name="train", status=status),
        data=SimpleNamespace(
            tags={"candidate": "network", "code.commit": git("rev-parse", "HEAD").strip()} | tags
        ),
    )
    files = [SimpleNamespace(path="config/params.yaml")] if config else []
    client: Any = SimpleNamespace(list_artifacts=lambda *_: files)
    monkeypatch.setattr(tracking, "client", lambda _: client)
    monkeypatch.setattr(reproduce.records, "find", lambda *_: found)
    with pytest.raises(ValueError, match=said):
        start(repository, "aaaa")


def test_one_run_must_be_named(repository: Project) -> None:
    for names in ([], ["a", "b"], ["seed=1"]):
        with pytest.raises(ValueError, match="name one run"):
            reproduce.run(None, Namespace(overrides=names, keep=False))


def test_every_metric_must_be_equal_bit_for_bit() -> None:
    old = {
        "test.f1": 0.1 + 0.2,
        "val.auroc": float("nan"),
        "evaluation.seconds": 3.0,
        "system/cpu": 1.0,
    }
    assert reproduce.show(old, {**old, "system/cpu": 2.0, "test.more": 1.0}) == (0, 2)
    assert reproduce.show(old, {**old, "test.f1": 0.3}) == (1, 2)
    assert reproduce.show(old, {"test.f1": old["test.f1"]}) == (1, 2)
    with pytest.raises(ValueError, match="no metric to compare"):
        reproduce.show({"loss": 1.0}, {})


def test_a_difference_names_what_changed_in_the_environment(tmp_path: Path) -> None:
    found = module("provenance").environment()
    assert reproduce.environment_differences(write(tmp_path, found)) == []
    changed = write(
        tmp_path, {**found, "python": "3.1.4", "packages": found["packages"] + "\nno-longer==1.0"}
    )
    assert reproduce.environment_differences(changed) == [
        "no-longer 1.0 -> none",
        f"python 3.1.4 -> {found['python']}",
    ]


def write(folder: Path, found: dict[str, str]) -> Path:
    module("provenance").write_json(folder / "environment" / "environment.json", found)
    return folder

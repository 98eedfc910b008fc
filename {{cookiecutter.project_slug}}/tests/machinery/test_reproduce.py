"""What a run records of its code, data and machine, and that `reproduce` gets the same metrics from
that.
"""

import shutil
import subprocess
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from harness import Project, dvc, module

provenance, reproduce, tracking = (
    module(n) for n in ("provenance", "experiments.reproduce", "tracking")
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
    patch, left = provenance.uncommitted()
    assert left == [] and git("status", "--porcelain") == status
    assert sorted(Path(".git/objects").rglob("*")) == objects
    other = tmp_path / ".state" / "other"
    git("worktree", "add", "--detach", "--quiet", str(other), "HEAD")
    (tmp_path / ".state" / "patch").write_bytes(patch)
    git("apply", "--whitespace=nowarn", "../patch", cwd=other)
    assert tree(other) == tree(tmp_path)


def test_a_clean_tree_and_a_folder_without_git_have_no_patch(repository: Project) -> None:
    assert provenance.uncommitted() == (b"", [])
    shutil.rmtree(".git")
    assert provenance.uncommitted() == (b"", [])


def ready(project: Project, trained_once: Path) -> None:
    """The data of the trained project, in DVC's cache as its pipeline would leave it."""
    shutil.copytree(trained_once / "data", "data", dirs_exist_ok=True)
    dvc("init", "--quiet", check=True)
    train = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]["train"]
    stages = {"make": {"cmd": "made", "outs": ["data/raw", "data/splits"]}, "train": train}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    dvc("commit", "--force", "make", check=True)
    git("add", "--all")
    git("commit", "--quiet", "-m", "second")


def start(name: str) -> int:
    return int(reproduce.run(None, Namespace(overrides=[name], keep=False)))


@pytest.mark.row("E1", "E2", "T3")
def test_a_run_is_had_again_after_code_data_and_configuration_changed(
    repository: Project, trained_once: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ready(repository, trained_once)
    settings = repository.settings("trainer.max_epochs=2", "seed=11")
    module("training.train").train(settings)
    client, reports = tracking.client(settings), settings.paths.reports
    runs = provenance.read_json(reports / tracking.RUN_FILE)["runs"]
    for split in settings.paths.splits.glob("*.parquet"):
        split.unlink()
    shutil.rmtree("configs")
    git("add", "--all")
    git("commit", "--quiet", "-m", "third")
    before = (tree(Path()), sorted(Path("mlruns").rglob("*")), len(client.search_runs(["1"])))
    assert start(runs["network"][:12]) == reproduce.EQUAL
    assert "train." in capfd.readouterr().out
    after = (tree(Path()), sorted(Path("mlruns").rglob("*")), len(client.search_runs(["1"])))
    assert before == after
    assert len(git("worktree", "list").splitlines()) == 1
    assert not list(Path(".state").glob("reproduce*"))
    # A baseline is had again by the training that it was in.
    assert reproduce.find(settings, runs["classical"]).info.run_id == runs["network"]
    shutil.rmtree(".dvc/cache")
    with pytest.raises(ValueError, match="`dvc pull` failed"):
        start(runs["network"])
    assert len(git("worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "tags", "message"),
    [
        ("FINISHED", {"code.commit": "none"}, "git could not say of which commit it was"),
        ("FINISHED", {"code.commit": "unknown"}, "git could not say of which commit it was"),
        ("FINISHED", {"code.commit": "0" * 40}, "commit 00000000 .* try `git fetch --all`"),
        ("FAILED", {}, "it is FAILED, and only a finished run can"),
        ("FINISHED", {"restored": "true"}, "only trainings record all of their inputs"),
    ],
)
def test_what_cannot_be_had_again_is_one_line(
    status: str,
    tags: dict[str, str],
    message: str,
    repository: Project,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit = git("rev-parse", "HEAD").strip()
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="a" * 32, status=status),
        data=SimpleNamespace(tags={"candidate": "network", "code.commit": commit} | tags),
    )
    monkeypatch.setattr(tracking, "client", lambda _: SimpleNamespace(get_run=lambda _: run))
    monkeypatch.setattr(reproduce, "find_run", lambda *_: run)
    with pytest.raises(ValueError, match=message):
        start("aaaa")
    Path(".git/shallow").write_text(f"{commit}\n", encoding="utf-8")
    shallow = "`git fetch --unshallow`" if "try `git fetch" in message else message
    with pytest.raises(ValueError, match=shallow):
        start("aaaa")


def test_one_run_must_be_named(repository: Project) -> None:
    for names in ([], ["a", "b"]):
        with pytest.raises(ValueError, match="name one run"):
            reproduce.run(None, Namespace(overrides=names, keep=False))


def test_every_metric_must_be_equal_bit_for_bit() -> None:
    old = {"test.f1": 0.1 + 0.2, "val.auroc": float("nan"), "system/cpu": 1.0}
    assert reproduce.count_differences(old, {**old, "system/cpu": 2.0, "test.more": 1.0}) == 0
    assert reproduce.count_differences(old, {**old, "test.f1": 0.3}) == 1
    assert reproduce.count_differences(old, {"test.f1": old["test.f1"]}) == 1
    with pytest.raises(ValueError, match="no metric to compare"):
        reproduce.count_differences({"loss": 1.0}, {})

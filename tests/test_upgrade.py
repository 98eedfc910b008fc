"""A project of the version before, edited in files that have moved since, is brought over by scripts/upgrade.py."""

import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project, bake_into, clean_environment, load
from tasks import TASKS

PACKAGE = "src/my_model"


def commit(project: Project) -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "edits")


def upgraded(project: Project, code: int = 0) -> str:
    done = project.run(sys.executable, ROOT / "scripts" / "upgrade.py", ".", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def old(tmp_path: Path, config: Path, request: pytest.FixtureRequest) -> Project:
    """The task's project as the version before generated it, committed."""
    module, task = load("scripts/upgrade.py"), request.param
    template = module.version_before(tmp_path / "template")
    answers = {"project_slug": "my-model", "project_name": "My Model", "task": task.name}
    path = module.bake(template, tmp_path, answers)
    project = Project(path, clean_environment(), task)
    project.run("git", "init", "--quiet")
    commit(project)
    return project


def append(project: Project, name: str, text: str) -> None:
    with (project.path / name).open("a", encoding="utf-8") as file:
        file.write(text)


@pytest.mark.parametrize("old", TASKS, ids=lambda task: task.name, indirect=True)
def test_edits_arrive_where_the_files_are_now(old: Project, tmp_path: Path, config: Path) -> None:
    for name in ("data/features.py", "data/schema.py", "modeling/networks.py", "evaluation/behaviour.py"):
        append(old, f"{PACKAGE}/{name}", f'\n\nMINE_{Path(name).stem.upper()} = "mine"\n')
    append(old, f"{PACKAGE}/mine.py", "from .data.features import encode as encode\n")
    append(old, "configs/source/mine.yaml", "# @package data.source\n_target_: my_model.data.source.mine\n")
    append(old, "docs/runbook.md", "\nCall Ada.\n")
    serving = old.path / "configs/serving/default.yaml"
    serving.write_text(serving.read_text(encoding="utf-8").replace("port: 8000", "port: 9123"), encoding="utf-8")
    commit(old)
    upgraded(old)
    for name in ("features", "schema", "networks", "behaviour"):
        text = (old.path / f"{PACKAGE}/task/{name}.py").read_text(encoding="utf-8")
        assert f'MINE_{name.upper()} = "mine"' in text
        compile(text, name, "exec")
    assert "from .task.features import" in (old.path / f"{PACKAGE}/mine.py").read_text(encoding="utf-8")
    assert "my_model.task.source.mine" in (old.path / "configs/source/mine.yaml").read_text(encoding="utf-8")
    assert "Call Ada." in (old.path / "docs/runbook.md").read_text(encoding="utf-8")
    assert "port: 9123" in (old.path / "configs/config.yaml").read_text(encoding="utf-8")
    assert not list((old.path / PACKAGE / "data").glob("features.py"))
    (tmp_path / "new").mkdir()
    new = bake_into(tmp_path / "new", config, task=old.task.name)
    assert old.names() == new.names() | {f"{PACKAGE}/mine.py", "configs/source/mine.yaml"}


@pytest.mark.parametrize("old", TASKS[:1], ids=lambda task: task.name, indirect=True)
def test_what_cannot_be_merged_is_named_and_nothing_is_lost(old: Project) -> None:
    append(old, f"{PACKAGE}/experiments/journal.py", "\n# mine\n")
    assert "uncommitted changes: commit them first" in upgraded(old, code=2)
    commit(old)
    assert f"by hand: {PACKAGE}/experiments/journal.py is no longer there, and was edited" in upgraded(old, code=3)
    assert "# mine" in old.run("git", "show", f"HEAD:{PACKAGE}/experiments/journal.py").stdout

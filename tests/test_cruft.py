"""An edited project takes a changed template: cruft merges both, also through the hook that lays files in place."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project, clean_environment
from tasks import TASKS


@pytest.fixture
def template(tmp_path: Path) -> Project:
    """The template as it stands, committed in a repository of its own."""
    path = tmp_path / "template"
    shutil.copytree(ROOT, path, ignore=shutil.ignore_patterns(".git", ".venv", "build", ".*_cache", "__pycache__"))
    project = Project(path, clean_environment(HOME=str(tmp_path)))
    project.run("git", "-c", "init.defaultBranch=main", "init", "--quiet")
    commit(project, "template")
    return project


def commit(project: Project, message: str) -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", message)


def cruft(project: Project, *arguments: object) -> subprocess.CompletedProcess[str]:
    return project.run(sys.executable, "-m", "cruft", *arguments)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("profile", ["full", "lean"])
def test_an_update_keeps_edits_and_brings_changes(template: Project, tmp_path: Path, profile: str) -> None:
    answers = f'{{"profile": "{profile}", "author": "A \\"quoted\\" name"}}'
    cruft(Project(tmp_path, template.env), "create", "--no-input", "--extra-context", answers, template.path)
    project = Project(tmp_path / "my-model", template.env)
    before = project.names()
    project.run("git", "-c", "init.defaultBranch=main", "init", "--quiet")
    commit(project, "generated")
    edit(project.path / "configs/serving/default.yaml", "port: 8000", "port: 9123")
    edit(project.path / "params.yaml", "seed: 7", "seed: 8")
    commit(project, "my edits")

    source = template.path / "{{cookiecutter.project_slug}}"
    edit(source / "configs/optimizer/adamw.yaml", "lr: 0.003", "lr: 0.004")
    task = source / "tasks" / TASKS[0].name
    edit(task / "configs/augmentation/shift.yaml", "size: 1", "size: 2")
    (task / "configs/augmentation/new.yaml").write_text("_target_: torch.nn.Identity\n", encoding="utf-8")
    (source / "deploy/kubernetes/new.yaml").write_text("kind: new\n", encoding="utf-8")
    commit(template, "a better template")
    done = cruft(project, "update", "--skip-apply-ask")

    assert "has been updated" in done.stdout, done.stdout + done.stderr
    for name, text in {
        "configs/serving/default.yaml": "port: 9123",
        "params.yaml": "seed: 8",
        "configs/optimizer/adamw.yaml": "lr: 0.004",
        "configs/augmentation/shift.yaml": "size: 2",
    }.items():
        assert text in (project.path / name).read_text(encoding="utf-8"), name
    full_alone = {"deploy/kubernetes/new.yaml"} if profile == "full" else set()
    assert project.names() == before | {"configs/augmentation/new.yaml"} | full_alone
    assert not list(project.path.rglob("*.rej"))

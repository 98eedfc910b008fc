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
    package = project.path / "src/my_model"
    edit(project.path / "configs/config.yaml", "port: 8000", "port: 9123")
    edit(project.path / "params.yaml", "seed: 7", "seed: 8")
    for name in ("networks", "features", "behaviour"):
        with (package / f"task/{name}.py").open("a", encoding="utf-8") as file:
            file.write("\n\nMINE = 1\n")
    edit(project.path / "docs/runbook.md", "# Runbook", "# Our runbook")
    commit(project, "my edits")

    source = template.path / "{{cookiecutter.project_slug}}"
    edit(source / "configs/optimizer/adamw.yaml", "lr: 0.003", "lr: 0.004")
    stages = source / "src" / "{{cookiecutter.package_name}}"
    for name in ("data/split", "modeling/module", "training/train", "evaluation/evaluate", "serving/app"):
        with (stages / f"{name}.py").open("a", encoding="utf-8") as file:
            file.write("\n\nNEWER = 1\n")
    task = source / "tasks" / TASKS[0].name
    edit(task / "augmentation.txt", "size: 1", "size: 2")
    (task / "configs/model/new.yaml").write_text("_target_: torch.nn.Identity\n", encoding="utf-8")
    (source / "deploy/kubernetes/new.yaml").write_text("kind: new\n", encoding="utf-8")
    commit(template, "a better template")
    done = cruft(project, "update", "--skip-apply-ask")

    assert "has been updated" in done.stdout, done.stdout + done.stderr
    for name, text in {
        "configs/config.yaml": "port: 9123",
        "src/my_model/task/networks.py": "MINE = 1",
        "src/my_model/task/behaviour.py": "MINE = 1",
        "src/my_model/modeling/module.py": "NEWER = 1",
        "src/my_model/serving/app.py": "NEWER = 1",
        "docs/runbook.md": "# Our runbook",
        "params.yaml": "seed: 8",
        "configs/optimizer/adamw.yaml": "lr: 0.004",
    }.items():
        assert text in (project.path / name).read_text(encoding="utf-8"), name
    full_alone = {"deploy/kubernetes/new.yaml"} if profile == "full" else set()
    assert "size: 2" in (project.path / "configs/config.yaml").read_text(encoding="utf-8")
    assert project.names() == before | {"configs/model/new.yaml"} | full_alone
    assert not list(project.path.rglob("*.rej"))

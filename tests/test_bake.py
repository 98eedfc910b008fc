"""What is generated: the exact files, no marker left over, everything parses, for every option and known pairs."""

import ast
import itertools
import json
import os
import re
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import PROMPTS, ROOT, TEMPLATE, Baker, Project, clean_environment, load
from tasks import TASKS, Task

FILES = ROOT / "tests" / "files.txt"
FULL_ONLY: list[str] = [
    name.replace("{{cookiecutter.package_name}}", "my_model") for name in load("hooks/post_gen_project.py").FULL_ONLY
]
ONE_AT_A_TIME = [{key: option} for key, options in PROMPTS.items() if isinstance(options, list) for option in options]
PAIRS = [
    {"profile": "lean", "ci": "none"},
    *({"profile": "lean", "task": task.name} for task in TASKS[1:]),
    {"profile": "lean", "ci": "gitlab", "license": "Proprietary"},
    {"profile": "lean", "license": "Apache-2.0", "author": 'A "quoted" \\ name'},
    {"ci": "gitlab", "license": "BSD-3-Clause"},
]
SUPPORTED = [*ONE_AT_A_TIME, *PAIRS]
# Jinja in any spelling. A bare }} or %} is legal in Python, JSON and YAML; after a space it is Jinja's.
MARKERS = re.compile(r"\{\{|\{%| %\}|\{#|\w \}\}|#\s*cc\s*:|cookiecutter", re.IGNORECASE)
OWN_BRACES = (".github/", "deploy/grafana/", "deploy/prometheus/")  # copied without rendering: braces of their own
MAY_NAME_COOKIECUTTER = {"README.md"}  # which says how the project was made and is updated


def title(answers: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in answers.items())


def of_task(name: str) -> set[str]:
    """Files that a task's folder lays over the project."""
    folder = TEMPLATE / "tasks" / name
    included = set(folder.glob("*.txt"))  # by line statements, into files of the project
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p not in included}
    return {n.replace("{{cookiecutter.package_name}}", "my_model") for n in names}


def expected(profile: str = "full", ci: str = "github", task: str = TASKS[0].name) -> set[str]:
    """File names for these answers, out of the list for the default ones."""
    names = set(FILES.read_text(encoding="utf-8").split()) - of_task(TASKS[0].name) | of_task(task)
    if profile == "lean":
        names = {n for n in names if not any(n == only or n.startswith(only + "/") for only in FULL_ONLY)}
    if ci != "github":
        names = {n for n in names if not n.startswith(".github/")}
    return names | ({".gitlab-ci.yml"} if ci == "gitlab" else set())


def test_eight_prompts_with_human_text() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["__prompts__"]
    assert len(PROMPTS) <= 8 and set(prompts) == set(PROMPTS)
    for key, options in PROMPTS.items():
        if isinstance(options, list):
            assert set(prompts[key]) == {"__prompt__", *options}, key


def test_the_list_of_files_is_exact(bake: Baker) -> None:
    """`UPDATE=1 make quick` writes the list anew: look at the difference before committing it."""
    names = bake().names()
    if os.environ.get("UPDATE") == "1":
        FILES.write_text("\n".join(sorted(names)) + "\n", encoding="utf-8")
    assert names == expected()


@pytest.mark.parametrize("answers", SUPPORTED, ids=title)
def test_every_option_gives_exactly_its_files(bake: Baker, answers: dict[str, str]) -> None:
    project = bake(**answers)
    chosen = {key: answers[key] for key in ("profile", "ci", "task") if key in answers}
    assert project.names() == expected(**chosen)


@pytest.mark.parametrize("answers", SUPPORTED, ids=title)
def test_no_marker_is_left(bake: Baker, answers: dict[str, str]) -> None:
    project = bake(**answers)
    for path in project.text_files():
        name = path.relative_to(project.path).as_posix()
        own_braces = path.suffix in (".html", ".j2") or name.startswith(OWN_BRACES)
        found = {m.lower() for m in MARKERS.findall(path.read_text(encoding="utf-8"))}
        allowed = {"cookiecutter"} if name in MAY_NAME_COOKIECUTTER else set()
        assert not {m for m in found - allowed if not own_braces or "cc" in m or "cookie" in m}, name


@pytest.mark.parametrize("answers", SUPPORTED, ids=title)
def test_everything_parses(bake: Baker, answers: dict[str, str]) -> None:
    check_parses(bake(**answers))


@pytest.mark.parametrize("answers", SUPPORTED, ids=title)
def test_a_table_in_a_document_ends_with_an_empty_line(bake: Baker, answers: dict[str, str]) -> None:
    """A line statement takes the empty lines after it along: what follows would become a row of the table."""
    project = bake(**answers)
    for path in (p for p in project.text_files() if p.suffix == ".md"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for row, after in itertools.pairwise(lines):
            name = f"{path.relative_to(project.path)}: {after[:60]}"
            assert not row.startswith("| ") or after.startswith("|") or not after, name
            assert not (after.startswith("## ") and row), name


def check_parses(project: Project) -> None:
    """Raises, naming the file, where one is not what its name says."""
    for path in project.text_files():
        text = path.read_text(encoding="utf-8")
        try:
            if path.suffix == ".py":
                ast.parse(text)
            elif path.suffix == ".toml":
                tomllib.loads(text)
            elif path.suffix in (".yaml", ".yml"):
                assert list(yaml.safe_load_all(text)) or not text.strip()
            elif path.suffix == ".json":
                json.loads(text)
        except (SyntaxError, ValueError, yaml.YAMLError) as error:
            pytest.fail(f"{path.relative_to(project.path)}: {error}")


def test_the_choices_are_where_the_project_reads_them(bake: Baker) -> None:
    project = bake(profile="lean", license="BSD-3-Clause", author="Ada Lovelace")
    settings = tomllib.loads((project.path / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["project"] == {"profile": "lean", "task": TASKS[0].name}
    assert settings["project"]["authors"] == [{"name": "Ada Lovelace"}]
    licence = (project.path / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("BSD 3-Clause") and "Ada Lovelace" in licence


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_brings_its_own_dependencies(bake: Baker, task: Task) -> None:
    project = bake(task=task.name)
    settings = tomllib.loads((project.path / "pyproject.toml").read_text(encoding="utf-8"))
    names = [re.split("[>=<]", requirement)[0] for requirement in settings["project"]["dependencies"]]
    own = {other.dependency for other in TASKS} - {None}
    assert own & set(names) == {task.dependency} - {None}
    assert not (project.path / "dependencies.txt").exists()


def test_lean_names_nothing_that_only_full_has(bake: Baker) -> None:
    project = bake(profile="lean")
    for path in project.text_files():
        code = path.suffix in (".py", ".toml", ".yaml", ".yml") or path.name in ("Makefile", "Dockerfile")
        if code and path.name != "checklist.yaml":  # which says what is not applicable, and why
            text = path.read_text(encoding="utf-8")
            assert not [only for only in FULL_ONLY if only in text], path


def test_full_only_files_exist(bake: Baker) -> None:
    assert not [only for only in FULL_ONLY if not (bake().path / only).exists()]


def test_bakes_without_network_git_or_other_tools(tmp_path: Path, config: Path) -> None:
    """On a path with spaces and letters beyond ASCII."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\ndef refuse(*_, **__): raise RuntimeError('no network here')\nsocket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n",
        encoding="utf-8",
    )
    folder = tmp_path / "a folder with spaces é"
    project = Project(tmp_path, clean_environment(PYTHONPATH=str(tmp_path), PATH=str(tmp_path)))
    folder.mkdir()
    command = ["-m", "cookiecutter", "--no-input", "--config-file", config, "--output-dir", folder, ROOT]
    done = project.run(sys.executable, *command)
    assert "make pipeline" in done.stdout
    assert Project(folder / "my-model", {}).names() == expected()
    assert not (folder / "my-model" / ".git").exists()


def test_baking_takes_under_a_second_of_cpu(tmp_path: Path, config: Path) -> None:
    from conftest import bake_into

    seconds = []
    for i in range(3):
        started = time.process_time()
        bake_into(tmp_path / str(i), config)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1

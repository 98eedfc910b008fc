"""Answers that cannot work are refused with one line and leave nothing; strange ones that can work give valid files."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Baker, Project, clean_environment
from test_bake import check_parses

REFUSED = [
    ({"project_name": ""}, "project_name must not be empty"),
    ({"project_name": "   ", "project_slug": "ok"}, "project_name must not be empty"),
    ({"project_name": "x" * 41, "project_slug": "ok"}, "project_name must have at most 40 characters, and has 41"),
    ({"project_name": "two\nlines", "project_slug": "ok"}, "project_name must be one line without control characters"),
    ({"author": ""}, "author must not be empty"),
    ({"author": "a\nb: c"}, "author must be one line without control characters"),
    ({"author": "bell\a"}, "author must be one line without control characters"),
    ({"author": "line\u2028end"}, "author must be one line without control characters"),
    ({"author": "${oc.env:HOME}"}, "author must not contain any of"),
    ({"author": "x # cc: if true"}, "author must not contain any of"),
    ({"author": "???"}, "author must say a name"),
    ({"project_slug": ""}, "already exists"),  # cookiecutter's own words
    ({"project_slug": "My-Model"}, "project_slug must be lower-case letters, digits and single hyphens"),
    ({"project_slug": "my model"}, "project_slug must be lower-case letters, digits and single hyphens"),
    ({"project_slug": "../evil"}, "project_slug must be lower-case letters, digits and single hyphens"),
    ({"project_slug": "a/b"}, "project_slug must be lower-case letters, digits and single hyphens"),
    ({"project_slug": "a/b/c"}, "project_slug must be lower-case letters, digits and single hyphens"),
    ({"project_slug": "-rf"}, "project_slug must be lower-case letters, digits and single hyphens"),
    ({"project_slug": "1st"}, "project_slug must be lower-case letters, digits and single hyphens"),
    ({"project_slug": "x" * 41}, "project_slug must have at most 40 characters, and has 41"),
    ({"project_slug": "torch", "package_name": "fine"}, "project_slug must not be 'torch'"),
    ({"project_slug": "hydra-core", "package_name": "fine"}, "project_slug must not be 'hydra-core'"),
    ({"project_slug": "con", "package_name": "fine"}, "project_slug must not be 'con'"),
    ({"package_name": ""}, "package_name must be lower-case letters, digits and single underscores"),
    ({"package_name": "my-model"}, "package_name must be lower-case letters, digits and single underscores"),
    ({"package_name": "_private"}, "package_name must be lower-case letters, digits and single underscores"),
    ({"package_name": "../../x"}, "package_name must be lower-case letters, digits and single underscores"),
    ({"package_name": "a.b"}, "package_name must be lower-case letters, digits and single underscores"),
    ({"package_name": "modèle"}, "package_name must be lower-case letters, digits and single underscores"),
    ({"package_name": "x" * 41}, "package_name must have at most 40 characters, and has 41"),
    ({"package_name": "class"}, "package_name must not be 'class', a keyword of Python"),
    ({"package_name": "match"}, "package_name must not be 'match', a keyword of Python"),
    ({"package_name": "json"}, "package_name must not be 'json', a module of Python's standard library"),
    ({"package_name": "torch"}, "package_name must not be 'torch', which the project needs"),
    ({"package_name": "mlflow"}, "package_name must not be 'mlflow', which the project needs"),
    ({"package_name": "tests"}, "package_name must not be 'tests', which the project needs"),
    ({"license": "GPL"}, "GPL provided for choice variable license"),
    ({"task": "chess"}, "chess provided for choice variable task"),
    ({"profile": "medium"}, "medium provided for choice variable profile"),
    ({"ci": "jenkins"}, "jenkins provided for choice variable ci"),
]
HOSTILE = [
    "O'Brien",
    'The "Team"',
    '"""',
    "'''",
    "back\\slash",
    "ends in a backslash\\",
    "\\u0041 \\n \\x41 %s {0}",
    "key: value # comment",
    "- yes",
    "null",
    "*anchor &alias !tag |",
    "Ünïcödé 日本語 עברית 😀",
    "$HOME `id` $(id) ; rm -rf",
    "<script>alert('x')</script> & co",
    "__import__('os').system('id')",
    "]] ' \" }} {",
]


def command_line(folder: Path, config: Path, answers: dict[str, str]) -> subprocess.CompletedProcess[str]:
    pairs = [f"{key}={value}" for key, value in answers.items()]
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        "--no-input",
        "--config-file",
        config,
        "--output-dir",
        folder,
        ROOT,
    ]
    return Project(folder, clean_environment()).run(*command, *pairs, check=False)


@pytest.mark.parametrize(("answers", "message"), REFUSED, ids=lambda x: str(x)[:40] if isinstance(x, dict) else "")
def test_what_cannot_work_is_refused_and_leaves_nothing(
    tmp_path: Path, config: Path, answers: dict[str, str], message: str
) -> None:
    folder = tmp_path / "in" / "out"
    folder.mkdir(parents=True)
    done = command_line(folder, config, answers)
    assert done.returncode != 0
    said = done.stderr + done.stdout
    assert any(message in line for line in said.splitlines()), said
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["in", "in/out"]


def test_a_refusal_spares_what_was_there(tmp_path: Path, config: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine", encoding="utf-8")
    assert command_line(tmp_path, config, {"project_slug": "a/b"}).returncode != 0
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "mine.txt"]


def test_every_broken_rule_has_its_line(tmp_path: Path, config: Path) -> None:
    done = command_line(tmp_path, config, {"author": "", "project_slug": "A", "package_name": "class"})
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split()[1] for line in errors] == ["author", "project_slug", "package_name"]


@pytest.mark.parametrize("text", HOSTILE)
def test_strange_names_give_valid_files(bake: Baker, text: str) -> None:
    project = bake(author=text, project_name=text, project_slug="strange")
    check_parses(project)
    assert project.names() == {name.replace("my_model", "strange") for name in bake().names()}
    configuration = yaml.safe_load((project.path / "configs" / "config.yaml").read_text(encoding="utf-8"))
    params = yaml.safe_load((project.path / "params.yaml").read_text(encoding="utf-8"))
    settings = tomllib.loads((project.path / "pyproject.toml").read_text(encoding="utf-8"))
    assert configuration["project"]["owner"] == text == params["project"]["owner"]
    assert settings["project"]["authors"] == [{"name": text}]
    assert settings["project"]["description"].startswith(text)
    assert text in (project.path / "LICENSE").read_text(encoding="utf-8")


def test_code_in_an_answer_is_not_run(tmp_path: Path, config: Path) -> None:
    """Cookiecutter renders answers once, as it does its own defaults; what comes out is plain text to every file."""
    code = "{{ '{{' }} cookiecutter.__class__ }}"
    done = command_line(tmp_path, config, {"author": code})
    assert done.returncode != 0 and "author must not contain any of" in done.stderr


@pytest.mark.slow
def test_a_name_of_forty_characters_passes_the_projects_checks(shared: Project, bake: Baker) -> None:
    name = "a" + "-long" * 7 + "-nam"
    assert len(name) == 40
    project = bake(project_name=name, project_slug=name)
    for command in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["yamllint", "--strict", "."],
    ):
        project.python("-m", *command)

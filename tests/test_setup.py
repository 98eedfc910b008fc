"""scripts/setup.py: one line for what is missing, nothing twice, git where it can, pip's configuration respected."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import cast

import pytest
from conftest import ROOT, Baker, Project, clean_environment

REPOSITORY = "import sys; sys.path.insert(0, 'scripts'); import setup; setup.check_tools(); setup.make_repository()"
NOBODY = {name: "" for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")}
SCRIPTS = [ROOT / "scripts" / "setup.py", None]  # the template's own, and the generated one


def without_identity(project: Project) -> Project:
    """As on a machine whose git knows nobody."""
    env = {k: v for k, v in project.env.items() if k not in NOBODY}
    return Project(project.path, env | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull})


def make_repository(project: Project) -> str:
    return project.run(sys.executable, "-c", REPOSITORY).stdout


def failing(project: Project, script: Path | None, preparation: str, **env: str) -> list[str]:
    """Lines on stderr of setup.py after some Python that spoils the machine."""
    code = (
        f"import runpy, sys; {preparation}; runpy.run_path({str(script or 'scripts/setup.py')!r}, run_name='__main__')"
    )
    done = project.run(sys.executable, "-c", code, check=False, extra=env)
    assert done.returncode != 0 and not done.stdout
    return done.stderr.splitlines()


@pytest.mark.parametrize("script", SCRIPTS, ids=["template", "project"])
def test_missing_tools_are_one_line_each(fresh: Baker, tmp_path: Path, script: Path | None) -> None:
    project = fresh()
    old = failing(project, script, "sys.version_info, sys.version = (3, 10, 2, 'final', 0), '3.10.2 (main)'")
    assert len(old) == 1 and "Python 3.11 or newer is needed, not 3.10.2" in old[0]
    no_venv = failing(
        project,
        script,
        "import importlib.util as u; u.find_spec, f = lambda n: None if n == 'ensurepip' else f(n), u.find_spec",
    )
    assert len(no_venv) == 1 and "no venv" in no_venv[0]
    no_git = failing(project, script, "pass", PATH=str(tmp_path / "nothing"))
    assert no_git == ["error: git is needed and was not found: install it first"]
    assert not (project.path / ".venv").exists()


def test_a_missing_python_is_one_line(fresh: Baker) -> None:
    done = fresh().run("make", "setup", "PYTHON=python-that-is-not-there", check=False)
    assert done.returncode != 0
    assert "error: Python 3.11 or newer is needed, and python-that-is-not-there was not found" in done.stderr


@pytest.mark.parametrize("version", ["3.6", "3.8", "3.10"])
def test_the_script_is_understood_by_older_pythons(version: str) -> None:
    """The real thing where one is installed: it must reach the line that says what is needed."""
    tried = [f"python{version}", *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for python in tried:
        try:
            done = subprocess.run(
                [python, ROOT / "{{cookiecutter.project_slug}}/scripts/setup.py"], capture_output=True, text=True
            )
        except FileNotFoundError:
            continue
        if done.returncode != 127:
            assert (
                done.stderr.startswith("error: Python 3.11 or newer is needed") and len(done.stderr.splitlines()) == 1
            )
            return
    import ast

    source = (ROOT / "{{cookiecutter.project_slug}}/scripts/setup.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=int(version.partition(".")[2]))


def test_a_repository_and_its_first_commit(fresh: Baker) -> None:
    project = fresh()
    assert "Committed the project as generated." in make_repository(project)
    assert project.run("git", "log", "--format=%s").stdout == "The project as generated\n"
    assert project.run("git", "symbolic-ref", "HEAD").stdout == "refs/heads/main\n"
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert make_repository(project) == ""  # a second call does nothing
    ignored = project.run("git", "ls-files", "--others", "--ignored", "--exclude-standard").stdout
    assert not [line for line in ignored.splitlines() if "__pycache__" not in line]


def test_without_an_identity_it_says_what_to_type(fresh: Baker) -> None:
    project = fresh()
    said = make_repository(without_identity(project))
    assert "git config --global user.name" in said and "git commit" in said
    assert (project.path / ".git").is_dir()
    assert project.run("git", "rev-parse", "--verify", "HEAD", check=False).returncode != 0
    assert "Committed" in make_repository(project)  # once git knows who


def test_inside_a_larger_repository_nothing_is_made(fresh: Baker, tmp_path: Path) -> None:
    project = fresh()
    Project(tmp_path, project.env).run("git", "init", "--quiet")
    assert make_repository(project) == ""
    assert not (project.path / ".git").exists()


def test_ignored_by_an_outer_repository_it_gets_its_own(fresh: Baker, tmp_path: Path) -> None:
    project = fresh()
    Project(tmp_path, project.env).run("git", "init", "--quiet")
    (tmp_path / ".gitignore").write_text("my-model/\n", encoding="utf-8")
    assert "Committed" in make_repository(project)
    assert (project.path / ".git").is_dir()


def fake_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def ask(project: Project, expression: str, **env: str) -> object:
    """The value of an expression inside the generated setup.py, with this Python as the environment."""
    code = (
        "import sys, json; from pathlib import Path; sys.path.insert(0, 'scripts'); import setup; "
        f"setup.python = lambda venv: Path(sys.executable); print(json.dumps({expression}))"
    )
    return json.loads(project.run(sys.executable, "-c", code, extra=env).stdout)


def test_a_torch_that_pip_is_pointed_to_is_taken(fresh: Baker, tmp_path: Path) -> None:
    project = fresh()
    fake_wheel(tmp_path, "torch", "99.1+cpu")
    env = {"PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    here = f"Path({str(tmp_path)!r})"
    assert ask(project, f"setup.torch_arguments({here}, [], dict())", **env) == ["torch==99.1+cpu"]
    flag, path = cast(list[str], ask(project, f"setup.constraints({here}, ['torch==99.1+cpu'])", **env))
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    assert flag == "--constraint" and not [line for line in lines if re.match("torch *==", line)]
    assert [line for line in lines if line.startswith("numpy==")]
    assert ask(project, f"setup.local_torch({here})", TORCH="cuda", **env) is None
    assert ask(project, f"setup.local_torch({here})", PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="") is None


def test_the_build_of_torch_is_remembered(fresh: Baker) -> None:
    project = fresh()
    stamp = project.path / ".venv" / "setup.stamp"
    assert ask(project, "setup.TORCH") == "cpu"
    stamp.parent.mkdir()
    stamp.write_text("0123abcd auto", encoding="utf-8")
    assert ask(project, "setup.TORCH") == "auto" and ask(project, "setup.TORCH", TORCH="cpu") == "cpu"


def test_uv_gets_what_pip_is_configured_with(fresh: Baker, tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nextra-index-url = https://a.example/simple\n    https://b.example/simple\nfind-links = /one\n"
        "[install]\nfind-links = /two\n",
        encoding="utf-8",
    )
    env = {
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PIP_INDEX_URL": "https://c.example/simple",
        "PIP_FIND_LINKS": "",
    }
    project = fresh()
    project = Project(project.path, {k: v for k, v in project.env.items() if not k.startswith(("PIP_", "UV_"))})
    found = ask(project, "setup.uv_environment(Path('.'))", **env)
    assert isinstance(found, dict)
    assert found["UV_DEFAULT_INDEX"] == "https://c.example/simple"
    assert found["UV_INDEX"] == "https://a.example/simple https://b.example/simple"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_FIND_LINKS"] == "/two"


def strip_dependencies(project: Project) -> None:
    """Nothing but the project itself to install, so that the real installation takes seconds."""
    path = project.path / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^dependencies = \[.*?^\]", "dependencies = []", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(train|dev) = \[.*?^\]", r"\1 = []", text, flags=re.MULTILINE | re.DOTALL)
    path.write_text(text, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("broken_uv", [False, True], ids=["uv", "pip where uv fails"])
def test_setup_works_on_a_path_with_spaces_and_only_once(tmp_path: Path, config: Path, broken_uv: bool) -> None:
    from conftest import bake_into

    folder = tmp_path / "a folder with spaces é"
    project = bake_into(folder, config)
    project = Project(project.path, clean_environment())
    strip_dependencies(project)
    env = {
        "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
        "UV_INDEX": "http://127.0.0.1:9/more",
        "UV_HTTP_RETRIES": "0",
    }
    first = project.run("make", "setup", extra=env | {"UV_NO_CACHE": "1"} if broken_uv else {})
    assert ("trying once more with pip" in first.stdout) is broken_uv
    assert "The environment is ready." in first.stdout and "Committed" in first.stdout
    python = project.path / ".venv" / "bin" / "python"
    project.run(python, "-c", "import my_model.settings as s; print(s.__file__)", check=False)
    assert project.run(python, "-c", "import my_model; print(my_model.__file__)").stdout.startswith(
        str(project.path / "src")
    )

    started = time.perf_counter()
    second = project.run("make", "setup")
    assert time.perf_counter() - started < 2 and second.stdout == "" == second.stderr

    text = (project.path / "pyproject.toml").read_text(encoding="utf-8")
    (project.path / "pyproject.toml").write_text(
        text.replace("max_length", "") + "\n[tool.other]\nx = 1\n", encoding="utf-8"
    )
    assert project.run("make", "setup").stdout == ""  # settings of a tool ask for no new installation
    (project.path / "requirements.lock").write_text("# changed\n", encoding="utf-8")
    assert "The environment is ready." in project.run("make", "setup").stdout


@pytest.mark.slow
def test_the_shared_environment_has_no_gpu_build_and_dvc_reports_nothing(shared: Project) -> None:
    """What `make setup` gives by default, and DVC at work on it."""
    assert shared.python("-c", "import torch; print(torch.version.cuda)").stdout.strip() == "None" or not (
        os.environ.get("PIP_FIND_LINKS")
    )
    listing = shared.python("-m", "dvc", "config", "--list").stdout
    assert "core.analytics=false" in listing and "core.remote=storage" in listing
    remote = shared.python("-m", "dvc", "remote", "list").stdout.split()[1]
    assert Path(remote).resolve() == shared.path.parent / "my-model-dvc-remote"
    shared.python("-m", "dvc", "status")


@pytest.mark.slow
def test_dvc_works_in_a_subfolder_of_a_repository_on_a_path_with_spaces(
    shared: Project, tmp_path: Path, config: Path
) -> None:
    from conftest import bake_into

    outer = tmp_path / "outer folder"
    project = bake_into(outer / "sub", config)
    Project(outer, project.env).run("git", "init", "--quiet")
    assert make_repository(project) == ""
    (project.path / "extra.txt").write_text("data", encoding="utf-8")
    project.python("-m", "dvc", "add", "extra.txt")
    project.python("-m", "dvc", "push", "extra.txt.dvc")
    assert (project.path.parent / "my-model-dvc-remote").is_dir()

"""The machine around a project: git that fails, clones that share an environment, line ends, pip's settings, paths."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Baker, Project, clean_environment
from test_setup import make_repository, strip_dependencies
from test_your_data import free_port

RECORD = """
import json; from my_model import params, provenance
tags = provenance.provenance_tags(params.load())
print(json.dumps([tags["code.commit"], tags["code.dirty"], provenance.uncommitted()[0].decode(), provenance.user()]))
"""


def record(project: Project, **env: str) -> tuple[list[str], str]:
    """Commit, changes, patch and user as a run would record them, and what was said."""
    done = project.python("-c", RECORD, extra=env)
    return json.loads(done.stdout), done.stderr


def commit_all(project: Project) -> None:
    for words in ("init --quiet", "add --all", "commit --quiet --message all"):
        project.run("git", *words.split())


@pytest.mark.slow
def test_what_git_cannot_say_is_recorded_as_unknown(split_project: Project, tmp_path: Path) -> None:
    project, home = split_project, {"HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": str(tmp_path / "none")}
    (commit, dirty, patch, _), said = record(project, **home)
    assert len(commit) == 40 and (dirty, patch, said) == ("False", "", "")

    def refused(remedy: str, **env: str) -> None:
        (commit, dirty, patch, user), said = record(project, **home, **env)
        assert (commit, dirty) == ("unknown", "unknown") and patch.startswith("unknown: ") and user
        assert len(said.splitlines()) == 1 and remedy in said

    bare = str(tmp_path / "bare")
    refused("'git'", PATH=bare)  # not installed
    head = project.path / ".git" / "HEAD"
    content = head.read_bytes()
    head.write_bytes(b"\0\0\0")
    refused("not a git repository")
    assert "Made a git" not in make_repository(project) and head.read_bytes() == b"\0\0\0"
    head.write_bytes(content)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "12345", project.path], check=True)
        refused("git config --global --add safe.directory")
        foreign = Project(project.path, project.env | home)
        said = make_repository(foreign)
        assert "Made a git" not in said and f"safe.directory {project.path}" in said


@pytest.mark.slow
def test_a_clone_with_windows_line_ends_has_the_same_bytes(fresh: Baker, tmp_path: Path) -> None:
    project = fresh()
    commit_all(project)
    project.run("git", "clone", "--quiet", "-c", "core.autocrlf=true", ".", tmp_path / "clone")
    for name in project.names():
        assert (tmp_path / "clone" / name).read_bytes() == (project.path / name).read_bytes(), name


@pytest.mark.slow
def test_set_up_stays_in_the_environment_whatever_pip_is_told(fresh: Baker, tmp_path: Path) -> None:
    project = fresh()
    strip_dependencies(project)
    astray = tmp_path / "astray"
    (astray / "pip").mkdir(parents=True)
    (astray / "pip" / "__init__.py").write_text("raise SystemExit('a stray pip')\n", encoding="utf-8")
    (tmp_path / "pip.conf").write_text("[global]\nuser = true\n", encoding="utf-8")
    env = {"PIP_USER": "1", "PIP_TARGET": f"{astray}/t", "PIP_PREFIX": f"{astray}/p", "PIP_REQUIRE_VIRTUALENV": "1"}
    env |= {"UV_SYSTEM_PYTHON": "1", "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PYTHONPATH": str(astray)}
    project = Project(project.path, clean_environment())
    done = project.run(sys.executable, "scripts/setup.py", extra=env)
    assert "The environment is ready." in done.stdout and not (astray / "t").exists()
    python = project.path / ".venv" / "bin" / "python"
    where = project.run(python, "-c", "import my_model; print(my_model.__file__)").stdout
    assert where.startswith(str(project.path / "src"))
    # Another Python is asked for: the environment is made anew, and plain `make` goes on with it.
    (project.path / ".venv" / "stray").touch()
    script = "import sys, runpy; sys.version += ' other'; runpy.run_path('scripts/setup.py', run_name='__main__')"
    project.run(sys.executable, "-c", script)
    assert not (project.path / ".venv" / "stray").exists()
    assert '".venv/bin/python" scripts/setup.py' in project.run("make", "--dry-run", "setup").stdout
    assert "mine scripts/setup.py" in project.run("make", "--dry-run", "setup", "PYTHON=mine").stdout


@pytest.mark.parametrize("name", ["a%20b", "100%", "really?", "{x}", 'a"b', "a:b"])
def test_a_path_that_tools_cannot_work_below_is_refused_in_a_line(tmp_path: Path, fresh: Baker, name: str) -> None:
    odd = tmp_path / name
    shutil.copytree(fresh().path, odd / "my-model")
    done = Project(odd / "my-model", clean_environment()).run(sys.executable, "scripts/setup.py", check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "cannot work below a path with" in done.stderr
    assert not (odd / "my-model" / ".venv").exists()


@pytest.mark.slow
def test_the_code_that_runs_lies_where_it_is_called(split_project: Project, tmp_path: Path) -> None:
    """A second clone, in an environment that leads to the first one: in the process and those that it starts."""
    second = Project(tmp_path / "second", split_project.env, split_project.task)
    split_project.run("git", "clone", "--quiet", ".", second.path)
    source = second.path / "src" / "my_model" / "data" / "sources" / "__init__.py"
    tell = "import multiprocessing as m, subprocess, sys\nprint('here', __file__)\n"
    tell += "subprocess.run([sys.executable, '-c', 'import my_model; print(\"child\", my_model.__file__)'])\n"
    source.write_text(tell + source.read_text(encoding="utf-8").replace("from __future__", "#"), encoding="utf-8")
    done = second.python("-m", "my_model", "ingest")
    lines = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("here", "child"))]
    assert len(lines) >= 2 and all(Path(line).is_relative_to(second.path) for line in lines), done.stdout
    words = ["-m", "pytest", "-q", "--co", "tests/test_settings.py"]
    where = "import my_model.settings as s; print(s.__file__)"
    (second.path / "tests" / "test_settings.py").write_text(where, encoding="utf-8")
    assert str(second.path) in second.python(*words, "-s", check=False).stdout


def living(session: int) -> list[str]:
    """The processes of a session that have not ended."""
    command = ["ps", "--sid", str(session), "-o", "stat=,args="]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if not line.startswith("Z")]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_trackers_page_ends_whole(split_project: Project, number: int) -> None:
    python = split_project.env["VENV"] + "/bin/python"
    with split_project.started(python, "-m", "my_model", "ui", "--port", str(free_port())) as page:
        log = split_project.path / "process.log"
        for _ in range(600):
            if "startup complete" in log.read_text(encoding="utf-8") or page.poll() is not None:
                break
            time.sleep(0.1)
        assert len(living(page.pid)) > 2
        page.send_signal(number)
        assert page.wait(20) == 130 and living(page.pid) == []


@pytest.mark.slow
@pytest.mark.deep
def test_dvcs_own_commands_have_metrics_plots_and_groups(trained: Project, tmp_path: Path) -> None:
    copy = Project(tmp_path / "copy", trained.env, trained.task)
    shutil.copytree(trained.path, copy.path, symlinks=True, ignore=shutil.ignore_patterns("mlruns"))
    commit_all(copy)

    def dvc(*words: str) -> str:
        return copy.python("-m", "dvc", *words, extra={"PATH": f"{copy.env['VENV']}/bin:{copy.env['PATH']}"}).stdout

    (metrics,) = json.loads(dvc("metrics", "show", "--json"))[""]["data"].values()
    assert set(metrics["data"]) == {"val", "test"}
    assert "M3.png" in dvc("plots", "show", "--json")
    dvc("exp", "run", "--set-param", "optimizer=sgd", "--set-param", "trainer.max_epochs=1", "--temp")
    assert "torch.optim.SGD" in dvc("exp", "show", "--csv")
    difference = json.loads(dvc("metrics", "diff", "--json", "HEAD", dvc("exp", "list", "--name-only").split()[0]))
    assert difference


@pytest.mark.slow
def test_a_damaged_object_leaves_dvcs_cache_by_make_refresh(split_project: Project) -> None:
    """DVC hashes no object whose time is unchanged: `verified` names the command, which mends other outputs as well."""
    project = split_project
    project.python("-c", "from my_model.pipeline import repro; repro([], 'split')")
    files = [project.path / name for name in ("data/raw/data.parquet", "data/splits/test.parquet")]
    whole = [file.read_bytes() for file in files]
    for content in whole:
        name = hashlib.md5(content).hexdigest()
        item = project.path / ".dvc/cache/files/md5" / name[:2] / name[2:]
        times = item.stat()
        item.chmod(0o644)
        item.write_bytes(content[:-1000] + bytes(1000))
        os.utime(item, ns=(times.st_atime_ns, times.st_mtime_ns))
        item.chmod(0o444)
    for folder in ("raw", "splits"):
        shutil.rmtree(project.path / "data" / folder)
    project.python("-m", "dvc", "checkout", "ingest", "split")
    assert [file.read_bytes() for file in files] != whole
    refused = project.python("-m", "my_model", "validate", check=False)
    assert refused.returncode == 2 and "run `make refresh`" in refused.stderr
    mended = project.python("-c", "from my_model import pipeline; pipeline.mend_cache()")
    assert "removed 2 damaged objects" in mended.stderr
    project.python("-c", "from my_model.pipeline import repro; repro([], '--force', '--single-item', 'ingest')")
    project.python("-c", "from my_model.pipeline import repro; repro([], 'split')")
    for folder in ("raw", "splits"):
        shutil.rmtree(project.path / "data" / folder)
    project.python("-m", "dvc", "checkout", "ingest", "split")
    assert [file.read_bytes() for file in files] == whole

"""Bakes for the tests. One environment serves all of them: build/test/.venv, made by the generated scripts/setup.py."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cookiecutter.main import cookiecutter
from filelock import FileLock
from tasks import TASKS, Task

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
BUILD = ROOT / "build" / "test"
PROMPTS = {
    k: v for k, v in json.loads((ROOT / "cookiecutter.json").read_text("utf-8")).items() if not k.startswith("_")
}
# Without what would lead a child to other environments, repositories or answers.
STRIPPED = (
    *("VENV", "VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "PYTEST_ADDOPTS", "LOCK", "TORCH"),
    "PYTHONDONTWRITEBYTECODE",  # bytecode is written as on a user's machine: DVC must not take it for code
)
IDENTITY = {f"GIT_{role}_{key}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
# Tests speak to servers on this machine, through none of its proxies.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"
NOTHING: Mapping[str, str] = {}
Baker = Callable[..., "Project"]


def load(path: str) -> ModuleType:
    """A Python file of the template as a module, without leaving a cache beside it."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    dont_write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = dont_write
    return module


def clean_environment(**extra: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in STRIPPED} | IDENTITY | extra


@dataclass(frozen=True)
class Project:
    """A generated project, and the environment in which its commands run."""

    path: Path
    env: dict[str, str]
    task: Task = TASKS[0]

    def run(
        self, *command: object, check: bool = True, extra: Mapping[str, str] = NOTHING
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the project; its output is in the failure's message."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.path,
            env=self.env | dict(extra),
            text=True,
            capture_output=True,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"exit code {done.returncode} from {command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
        return done

    def python(
        self, *arguments: object, check: bool = True, extra: Mapping[str, str] = NOTHING
    ) -> subprocess.CompletedProcess[str]:
        """The shared environment's Python, which finds this project's package."""
        return self.run(environment_python(), *arguments, check=check, extra=extra)

    @contextlib.contextmanager
    def started(self, *command: object) -> Iterator[subprocess.Popen[str]]:
        """A process in a group of its own, which is gone when the block ends."""
        with (self.path / "process.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.path,
                env=self.env,
                text=True,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(15)

    def text_files(self) -> list[Path]:
        """Everything that was generated, sorted."""
        hidden = {".git", ".venv", "__pycache__"}
        return sorted(
            p for p in self.path.rglob("*") if p.is_file() and not hidden & set(p.relative_to(self.path).parts)
        )

    def names(self) -> set[str]:
        return {p.relative_to(self.path).as_posix() for p in self.text_files()}


def environment_python() -> Path:
    return BUILD / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def bake_into(folder: Path, config: Path, **answers: str) -> Project:
    """Generates a project as a person would who changes these answers only."""
    path = Path(
        cookiecutter(str(ROOT), no_input=True, extra_context=answers, output_dir=str(folder), config_file=str(config))
    )
    task = next(task for task in TASKS if task.name == answers.get("task", TASKS[0].name))
    return Project(path, clean_environment(PYTHONPATH=str(path / "src"), MYPY_CACHE_DIR=str(BUILD / "mypy")), task)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cookiecutter's user configuration, so that a person's own defaults and records stay out of it."""
    folder = tmp_path_factory.mktemp("user")
    path = folder / "config.yaml"
    path.write_text(f"cookiecutters_dir: '{folder}'\nreplay_dir: '{folder}'\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def bake(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Baker:
    """`bake(profile="lean")` is a project to read; equal answers give the same one. Copy it before changing it."""
    made: dict[tuple[tuple[str, str], ...], Project] = {}

    def bake(**answers: str) -> Project:
        key = tuple(sorted(answers.items()))
        if key not in made:
            made[key] = bake_into(tmp_path_factory.mktemp("bake"), config, **answers)
        return made[key]

    return bake


@pytest.fixture
def fresh(tmp_path: Path, config: Path) -> Baker:
    """As `bake`, for tests that change the project."""
    return lambda **answers: bake_into(tmp_path, config, **answers)


@pytest.fixture(scope="session")
def shared(config: Path, testrun_uid: str) -> Project:
    """The default project with a working environment, which is kept from one session to the next.

    Of the processes that test, the first one makes it; the others wait.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    made = BUILD / "made"
    with FileLock(BUILD.with_suffix(".lock")):
        if not made.exists() or made.read_text(encoding="utf-8") != testrun_uid:
            for leftover in [path for path in BUILD.glob("*") if path.name not in (".venv", "mypy")]:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            project = bake_into(BUILD, config)
            project.env["VENV"] = str(BUILD / ".venv")
            project.run(sys.executable, "scripts/setup.py")
            made.write_text(testrun_uid, encoding="utf-8")
    path = BUILD / "my-model"
    settings = {"PYTHONPATH": str(path / "src"), "MYPY_CACHE_DIR": str(BUILD / "mypy"), "VENV": str(BUILD / ".venv")}
    return Project(path, clean_environment(**settings))


def ran(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The pipeline's stages that DVC ran."""
    lines = (done.stdout + done.stderr).splitlines()
    return [line.split("'")[1] for line in lines if line.startswith("Running stage")]


def each_task() -> list[Any]:
    """The tasks as parameters; those after the first are for `make test ALL=1`."""
    deep = [[], *([pytest.mark.deep] for _ in TASKS[1:])]
    return [pytest.param(task, id=task.name, marks=marks) for task, marks in zip(TASKS, deep, strict=True)]


@pytest.fixture(scope="session", params=each_task())
def trained(request: pytest.FixtureRequest, shared: Project, config: Path) -> Project:
    """A project of each task after `make pipeline`, in one environment; each process that tests has its own, and
    makes it again when it comes back to the task, since tests change it.
    """
    task: Task = request.param
    folder = Path(tempfile.mkdtemp(prefix=f"{task.name}-", dir=BUILD))
    project = bake_into(folder, config, task=task.name)
    project.env["VENV"] = shared.env["VENV"]
    project.run("git", "init", "--quiet")
    done = project.run("make", "pipeline")
    assert ran(done) == ["ingest", "validate", "split", "train", "evaluate", "package"]
    return project


@pytest.fixture(scope="session")
def split_once(shared: Project, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose data are split and committed, in the shared environment; copied, never used as it is."""
    project = bake_into(tmp_path_factory.mktemp("split"), config)
    project.env["VENV"] = shared.env["VENV"]
    project.run("git", "init", "--quiet")
    for verb in ("ingest", "validate", "split"):
        project.python("-m", "my_model", verb)
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "Split data")
    return project


@pytest.fixture
def split_project(split_once: Project, tmp_path: Path) -> Project:
    """A copy of it, to be changed."""
    path = tmp_path / split_once.path.name
    shutil.copytree(split_once.path, path, symlinks=True)
    return Project(path, {**split_once.env, "PYTHONPATH": str(path / "src")}, split_once.task)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """With REQUIRE_ALL=1 a skipped test is a failed one, unless it wants a GPU."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "GPU" not in reason:
            report.outcome, report.longrepr = "failed", f"REQUIRE_ALL=1 and yet: {reason}"
    return report


def note_time(name: str, seconds: float) -> None:
    """Keeps how long a part of the tests took, for `make sizes`."""
    path = BUILD.parent / "times.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        times = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps({**times, name: round(seconds, 1)}, indent=2), encoding="utf-8")


STARTED = time.monotonic()
TIERS = {"not slow and not deep": "make quick", "not deep": "make test", "": "make test ALL=1"}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    option = session.config.option
    whole = not option.keyword and session.config.args == session.config.getini("testpaths")
    if whole and exitstatus == 0 and not hasattr(session.config, "workerinput") and option.markexpr in TIERS:
        note_time(TIERS[option.markexpr], time.monotonic() - STARTED)

"""What the tests share: the package under its own name, and a folder laid out as a project."""

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
# Programs that tests start have the code of this folder too, whatever the environment leads to.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
PACKAGE = next(p.parent.name for p in (ROOT / "src").glob("*/settings.py"))
NONE = Namespace(override=None, reason="a test")
SMALL = [
    "trainer.max_epochs=6",
    "trainer.enable_progress_bar=false",
    "evaluation.perturbation.steps=2",
]


def module(name: str) -> ModuleType:
    """A module of the package, whatever the package is called."""
    return import_module(f"{PACKAGE}.{name}")


def benchmark(name: str) -> ModuleType:
    """A program of benchmarks/ as a module."""
    folder = ROOT / "benchmarks"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # for what it imports from there
    spec = spec_from_file_location(f"benchmark_{name}", folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def dvc(*arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """A DVC command in the working directory; the stages call plain `python`, which must be this
    one.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command, env = [sys.executable, "-m", "dvc", *arguments], {**os.environ, "PATH": path}
    return subprocess.run(command, capture_output=True, text=True, check=check, env=env)


class Project:
    """A folder laid out as a project, with its settings; stages run in this process."""

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder, self.overrides = folder, overrides

    def settings(self, *overrides: str) -> Any:
        return module("params").load([*self.overrides, *overrides])

    def run(self, verb: str, *overrides: str) -> int:
        stage = module(module("__main__").VERBS[verb][0])
        return int(stage.run(self.settings(*overrides), NONE))


def lay_out(folder: Path) -> None:
    """What a stage needs beside the package: configuration, pipeline, an empty feedback folder."""
    for name in ("configs", "docs"):
        shutil.copytree(ROOT / name, folder / name, copy_function=shutil.copyfile)
    for name in ("dvc.yaml", "checklist.yaml", "requirements.lock"):
        if (ROOT / name).is_file():
            shutil.copyfile(ROOT / name, folder / name)
    (folder / "data" / "feedback").mkdir(parents=True)
    os.chdir(folder)
    (folder / "params.yaml").write_text(module("pipeline").compose([]), encoding="utf-8")

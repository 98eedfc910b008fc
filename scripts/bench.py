"""make bench-NAME: runs benchmarks/project/NAME.py in a project: PROJECT=path, or a bake in build/bench made for it.

The bake gets an environment of its own, as a user's project does, and runs its pipeline once, so that there is a model.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "bench"
PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"


def bake() -> Path:
    """The default project in build/bench, generated anew over what an earlier bench left."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    options = ["--no-input", "--default-config", "--overwrite-if-exists", "--output-dir", str(FOLDER), str(ROOT)]
    answers = [f"task={os.environ['TASK']}"] if os.environ.get("TASK") else []
    subprocess.run([sys.executable, "-m", "cookiecutter", *options, *answers], check=True)
    return FOLDER / "my-model"


def main(name: str, overrides: list[str]) -> int:
    names = sorted(path.stem for path in (ROOT / "benchmarks" / "project").glob("*.py") if path.stem != "common")
    if name not in names:
        print(f"error: no bench {name!r}: choose one of bake, {', '.join(names)}", file=sys.stderr)
        return 2
    project = Path(os.environ["PROJECT"]).resolve() if os.environ.get("PROJECT") else bake()
    if not (project / "params.yaml").is_file():
        print(f"error: PROJECT={project} is no generated project: there is no params.yaml", file=sys.stderr)
        return 2
    env = {k: v for k, v in os.environ.items() if k not in ("VENV", "VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS")}
    subprocess.run([sys.executable, "scripts/setup.py"], cwd=project, env=env, check=True)
    python = str(project / ".venv" / PYTHON)
    if not (project / "dvc.lock").is_file():
        subprocess.run(["make", "pipeline"], cwd=project, env=env, check=True)
    command = [python, str(ROOT / "benchmarks" / "project" / f"{name}.py"), *overrides]
    return subprocess.run(command, cwd=project, env={**env, "PYTHONPATH": str(project / "src")}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

"""python3 scripts/setup.py: the environment of the template's own tools, in .venv; a second call does nothing.

The generated project's scripts/setup.py does the work, so that both install in the same way.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    sys.dont_write_bytecode = True  # a cache inside the template's folder would go into every generated project
    path = ROOT / "{{cookiecutter.project_slug}}" / "scripts" / "setup.py"
    spec = importlib.util.spec_from_file_location("project_setup", str(path))
    assert spec is not None and spec.loader is not None
    project_setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(project_setup)  # stops with one line where Python is too old
    vars(project_setup).update(ROOT=ROOT, LOCK=ROOT / "requirements.lock", EXTRAS=("dev",))
    project_setup.check_tools()
    if shutil.which("make") is None:
        sys.exit("error: make is needed and was not found: install it first")
    project_setup.make_environment()


if __name__ == "__main__":
    main()

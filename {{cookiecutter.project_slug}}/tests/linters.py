"""Linters of other people's formats: found beside this Python or on the PATH, and a visible skip
where they are not.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def deploy() -> Path:
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Runs a linter and returns its output; its complaint fails the test. REQUIRE_ALL=1 makes its
    absence a failure.
    """

    def run(name: str, *arguments: str | Path) -> str:
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        found = shutil.which(name, path=places)
        if found is None and os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(f"{name} is not installed")
        if found is None:
            pytest.skip(f"{name} is not installed")
        done = subprocess.run(
            [found, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run

"""Speed of one part, beside what it is compared with: `bench train`, with the options of
benchmarks/train.py.

Each benchmark is a program of its own, prints a table and writes reports/bench-<name>.json.
"""

import argparse
import subprocess
import sys
from pathlib import Path

FOLDER = Path("benchmarks")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own: `bench train --help` shows them."""


def explore(argv: list[str]) -> int:
    """Runs the benchmark that the first argument names, with the others."""
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "common")
    if not argv or argv[0] not in names:
        raise ValueError(f"name one bench, in the project's root folder: {', '.join(names)}")
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{argv[0]}.py"), *argv[1:]], check=False
    ).returncode

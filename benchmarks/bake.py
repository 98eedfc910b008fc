"""make bench-bake: time to generate a project, as a ratio to the least that Python with cookiecutter costs.

Both are whole processes in turn: a bake with default answers, and an interpreter that imports cookiecutter and ends.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 9


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    bakes, floors = [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            bake = ["-m", "cookiecutter", "--no-input", "--default-config", "--output-dir", folder, str(ROOT)]
            bakes.append(seconds([sys.executable, *bake]))
        floors.append(seconds([sys.executable, "-c", "import cookiecutter.main"]))
    ratio = statistics.median(b / f for b, f in zip(bakes, floors, strict=True))
    print(f"bake {statistics.median(bakes):.2f} s, import alone {statistics.median(floors):.2f} s, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()

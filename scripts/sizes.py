"""make sizes: what an owner has to read, and what the tests take, beside the template of November 2026.

Mass is counted in syntax-tree nodes of src/, since lines can be packed; density is nodes per line that is not blank.
Times are those of the last runs of the tests on this machine, which tests/conftest.py notes.
"""

import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMES = ROOT / "build" / "times.json"
# The default task's package, and minutes of tests, before it was rebuilt: commit 6d3d2ad.
BEFORE = {"full": (121_450, 10.8), "lean": (118_753, 10.8)}
BEFORE_TIMES = {"make quick": 1.7, "make test": 64.7, "make test ALL=1": 64.7, "own tests": 9.6, "lean, own tests": 9.7}
GOALS = {"full": 76_000, "lean": 52_000}


def bake(folder: Path, task: str, profile: str) -> Path:
    answers = [f"task={task}", f"profile={profile}"]
    options = ["--no-input", "--default-config", "--output-dir", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", *options, str(ROOT), *answers], check=True, capture_output=True
    )
    return folder / "my-model"


def mass(folder: Path) -> tuple[int, int, dict[str, int]]:
    """Nodes, lines that are not blank, and nodes by folder of the package."""
    nodes, lines, parts = 0, 0, dict[str, int]()
    package = next((folder / "src").iterdir())
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        count = sum(1 for _ in ast.walk(ast.parse(text)))
        part = path.relative_to(package).parts[0]
        nodes, parts[part] = nodes + count, parts.get(part, 0) + count
        lines += sum(bool(line.strip()) for line in text.splitlines())
    return nodes, lines, parts


def main() -> None:
    tasks = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["task"]
    print(f"{'project':<30}{'nodes':>9}{'before':>9}{'goal':>9}{'a line':>8}{'before':>8}{'tests':>9}")
    details = {}
    for task in tasks:
        for profile, goal in GOALS.items():
            with tempfile.TemporaryDirectory() as folder:
                project = bake(Path(folder), task, profile)
                nodes, lines, details[task, profile] = mass(project)
                tests = sum(
                    sum(1 for _ in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
                    for path in (project / "tests").rglob("*.py")
                )
            before, density = BEFORE[profile] if task == tasks[0] else ("", "")
            print(
                f"{task + ' ' + profile:<30}{nodes:>9}{before:>9}{goal:>9}{nodes / lines:>8.1f}{density:>8}{tests:>9}"
            )
    names = sorted({name for parts in details.values() for name in parts})
    print("\nnodes by folder" + "".join(f"{task[:9] + ' ' + profile:>16}" for task, profile in details))
    for name in names:
        print(f"{name:<15}" + "".join(f"{parts.get(name, 0):>16}" for parts in details.values()))
    print("\nfloors: no arrow up and no circle is what tests/test_floors.py holds; before: 3 bundles up, 2 circles")
    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.is_file() else {}
    print(f"\n{'minutes of tests':<36}{'now':>9}{'before':>8}")
    for name in [*BEFORE_TIMES, *(name for name in times if name not in BEFORE_TIMES)]:
        now = f"{times[name] / 60:.1f}" if name in times else "not run"
        print(f"{name:<36}{now:>9}{BEFORE_TIMES.get(name, ''):>8}")


if __name__ == "__main__":
    main()

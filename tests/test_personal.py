"""A value of a personal column is in no report, whatever is wrong with its row."""

import csv
import random
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Baker, Project
from tasks import TASKS
from test_story import replay, server

pytestmark = [pytest.mark.slow, pytest.mark.deep]
MARKS = {"name": "hash", "town": "drop", "id": "hash", "weight": "drop", "day": "hash"}
SECRET = re.compile(r"(?i)zq[a-z]*[- _]?\d|\d\.\d*7717")
SMALL = ("trainer.max_epochs=2", "evaluation.slices.min_size=5")


def people(rows: int = 600) -> list[dict[str, Any]]:
    """Rows of two classes in which every personal value is recognised: by zq..., or by 7717 behind the point."""
    rng, table = random.Random(0), []
    for i in range(rows):
        a = round(rng.gauss(0, 1), 3)
        row: dict[str, Any] = {"id": f"zqkey-{i}", "a": a, "weight": rng.randrange(50, 90) + 0.7717}
        row |= {"name": f"zqname-{rng.randrange(12)}", "town": f"zqtown-{rng.randrange(4)}"}
        row |= {"day": f"zqday {i % 28 + 1}", "y": "yes" if a + rng.gauss(0, 0.3) > 0 else "no"}
        table.append(row | ({"weight": ""} if rng.random() < 0.05 else {}))
    return table


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def leaks(project: Project) -> dict[str, list[str]]:
    """What is recognised in each file of the reports, Parquet included; pictures do not hold text."""
    hits = {}
    for file in sorted((project.path / "reports").rglob("*")):
        if not file.is_file() or file.suffix == ".png":
            continue
        if file.suffix == ".parquet":
            text = project.python("-c", f"import pandas as pd; print(pd.read_parquet({str(file)!r}).to_csv())").stdout
        else:
            text = re.sub(r"base64,[\w+/=]+", "", file.read_text(encoding="utf-8"))
        if values := [match.group() for match in SECRET.finditer(text)]:
            hits[file.name] = values[:5]
    return hits


def mark(project: Project) -> None:
    file = project.path / "configs" / "data" / "people.yaml"
    text = file.read_text(encoding="utf-8")
    for name, word in MARKS.items():
        text, changed = re.subn(rf"^    {name}: keep$", f"    {name}: {word}", text, flags=re.MULTILINE)
        assert changed == 1
    file.write_text(text, encoding="utf-8")


def test_no_report_shows_a_personal_value(fresh: Baker, shared: Project, tmp_path: Path) -> None:
    project = fresh(task=TASKS[1].name)
    project.env["VENV"] = shared.env["VENV"]
    rows, file = people(), tmp_path / "people.csv"
    write(file, rows)
    project.run("git", "init", "--quiet")
    project.python("-m", "my_model", "describe", file, "--label", "y")
    choice = "experiment=people"
    assert project.python("-m", "my_model", "pipeline", choice, *SMALL, check=False).returncode in (0, 1)
    assert leaks(project)  # as long as nothing is marked, they are there
    mark(project)
    done = project.python("-m", "my_model", "pipeline", choice, *SMALL, check=False)
    assert not leaks(project) and not SECRET.search(done.stdout + done.stderr)
    if (project.path / "live" / "current.json").exists():
        with server(project) as url:
            replay(project, url, "--feedback")
        project.python("-m", "my_model", "monitor", check=False)
        assert (project.path / "reports" / "monitor.html").is_file() and not leaks(project)
    # Values, keys and categories that are not declared, rows twice, and drift.
    for i, row in enumerate(rows):
        row |= {"a": 1e6} if i < 10 else {}
        row |= {"weight": 999.7717, "town": "zqtown-0"} if i % 3 == 0 else {}
        row |= {"name": "zqname-99"} if i % 7 == 0 else {}
    write(file, [*rows, *rows[:30]])
    done = project.python("-m", "my_model", "pipeline", "--refresh", choice, *SMALL, check=False)
    assert done.returncode != 0 and "invalid data" in done.stdout + done.stderr
    assert (project.path / "reports" / "invalid_rows.csv").read_text(encoding="utf-8").count("\n") > 50
    assert not leaks(project) and not SECRET.search(done.stdout + done.stderr)

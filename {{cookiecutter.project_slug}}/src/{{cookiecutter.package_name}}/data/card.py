"""The data card: what people answered in docs/data_card.md, and the statistics that the pipeline
computed.

It is written to reports/data_card.md, which DVC keeps: a pipeline that filled in the committed page
would leave the working tree changed after every new snapshot.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..provenance import data_version, read_json
from ..settings import Settings
from .ingest import MANIFEST

ANSWERS = Path("docs/data_card.md")


def answers() -> str:
    return ANSWERS.read_text(encoding="utf-8").rstrip() if ANSWERS.is_file() else ""


def unanswered(settings: Settings) -> list[str]:
    """Headings of docs/data_card.md without an answer; all of them where it speaks of another data
    set.
    """
    sections = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", answers(), re.M | re.S)
    if f"\nAnswers for the data set: {settings.data.name}\n" not in f"\n{answers()}\n":
        return [name for name, _ in sections] or [str(ANSWERS)]
    return [name for name, text in sections if not re.search(r"^[^>\s]", text, re.M)]


def table(head: str, rows: Iterable[tuple[Any, ...]]) -> str:
    """A table of Markdown; `head` is its first line."""
    lines = [head, re.sub("[^|]+", "---", head)]
    for row in rows:
        cells = ["" if cell is None else str(cell).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(settings: Settings) -> None:
    """reports/data_card.md from the answers, the manifest, and the reports of validate and split."""
    reports, raw = settings.paths.reports, settings.paths.raw
    valid, splits = read_json(reports / "validation.json"), read_json(reports / "splits.json")
    ((name, file),) = read_json(raw / MANIFEST)["files"].items()
    facts = [
        ("data set", settings.data.name),
        ("source", f"`{settings.data.source['_target_']}`"),
        ("version", f"`{data_version(settings)}`"),
        (f"SHA-256 of {name}", f"`{file['sha256']}`"),
        ("rows", valid["rows"]),
        ("bytes", file["bytes"]),
        ("test rows with a near-duplicate in train", splits["near_duplicates"]["rows"]),
    ]
    checks = [(c["check"], c["found"], c["rule"]) for c in valid["checks"]]
    columns = [(column, *numbers.values()) for column, numbers in valid["columns"].items()]
    parts = [
        answers() or "# Data card",
        "## Statistics\n\nWritten by the pipeline from this snapshot.",
        table("| fact | value |", facts),
        table("| check | number | must be |", checks),
        table("| label | rows or value |", valid["labels"].items()),
        table("| column | type | missing | lowest | highest |", columns),
        table("| split | rows |", splits["rows"].items()),
    ]
    (reports / "data_card.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")

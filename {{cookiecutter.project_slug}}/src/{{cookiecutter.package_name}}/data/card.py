"""The data card: what people answered in docs/data_card.md, and the statistics that the pipeline
found.

It is written to reports/data_card.md, which DVC keeps: a pipeline that filled in the committed page
would leave the working tree changed after every new snapshot.
"""

import re
from pathlib import Path
from typing import Any

from ..provenance import data_version, read_json
from ..settings import Settings

ANSWERS = Path("docs/data_card.md")


def unanswered(settings: Settings) -> list[str]:
    """Headings of docs/data_card.md without an answer; all of them where it speaks of another data
    set.
    """
    text = ANSWERS.read_text(encoding="utf-8") if ANSWERS.is_file() else ""
    sections = re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    about = re.search(r"^Answers for the data set: (.+)$", text, re.M)
    if not about or about.group(1).strip() != settings.data.name or not sections:
        return [name for name, _ in sections] or [str(ANSWERS)]
    return [
        n
        for n, body in sections
        if not any(x.strip() and not x.startswith(">") for x in body.splitlines())
    ]


def table(head: list[str], rows: list[list[Any]]) -> str:
    cells = [
        [
            ("" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell))
            for cell in r
        ]
        for r in rows
    ]
    lines = [head, ["---"] * len(head), *[[c.replace("|", "\\|") for c in row] for row in cells]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(settings: Settings) -> Path:
    """reports/data_card.md from the answers, the manifest, and the reports of validate and split."""
    reports = settings.paths.reports
    manifest = read_json(settings.paths.raw / "manifest.json")
    valid, splits = read_json(reports / "validation.json"), read_json(reports / "splits.json")
    (name, file), *_ = manifest["files"].items()
    facts = [
        ["data set", settings.data.name],
        ["source", f"`{settings.data.source['_target_']}`"],
        ["version", f"`{data_version(settings)}`"],
        [f"SHA-256 of {name}", f"`{file['sha256']}`"],
        ["rows", valid["rows"]],
        ["bytes", file["bytes"]],
        ["test rows with a near-duplicate in train", splits["near_duplicates"]["rows"]],
        *[
            [c["check"], f"{c['found']:g} ({c['rule']})"]
            for c in valid["checks"]
            if c["check"] != "rows"
        ],
    ]
    columns = [
        [n, c["type"], c["missing"], c["lowest"], c["highest"]] for n, c in valid["columns"].items()
    ]
    parts = [
        ANSWERS.read_text(encoding="utf-8").rstrip() if ANSWERS.is_file() else "# Data card",
        "## Statistics\n\nWritten by the pipeline from this snapshot.",
        table(["fact", "value"], facts),
        table(
            ["label", "rows" if settings.data.labels else "value"],
            [[n, v] for n, v in valid["labels"].items()],
        ),
        table(["column", "type", "missing", "lowest", "highest"], columns),
        table(["split", "rows"], [[n, v] for n, v in splits["rows"].items()]),
        table(
            ["step of ingest", "rows", "bytes"],
            [[s["step"], s["rows"], s["bytes"]] for s in manifest["steps"]],
        ),
    ]
    path = reports / "data_card.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path

"""The data card: what people answered in docs/data_card.md, and the statistics that the pipeline
computed.

It is written to reports/data_card.md, which DVC keeps: a pipeline that filled in the committed page
would leave the working tree changed after every new snapshot.
"""

import re
from pathlib import Path

from ..provenance import data_version, read_json, write_text
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


def write(settings: Settings) -> None:
    """reports/data_card.md from the answers, the manifest, and the two reports."""
    from jinja2 import Template

    reports, raw = settings.paths.reports, settings.paths.raw
    valid, splits = read_json(reports / "validation.json"), read_json(reports / "splits.json")
    ((name, file),) = read_json(raw / MANIFEST)["files"].items()
    facts = {
        "data set": settings.data.name,
        "source": f"`{settings.data.source['_target_']}`",
        "version": f"`{data_version(settings)}`",
        f"SHA-256 of {name}": f"`{file['sha256']}`",
        "rows": valid["rows"],
        "bytes": file["bytes"],
        "test rows with a near-duplicate in train": splits["near_duplicates"]["rows"],
        **{check["check"]: check["found"] for check in valid["checks"][1:]},
    }
    template = Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8")
    card = Template(template, trim_blocks=True).render(
        answers=answers(),
        facts=facts,
        labels=valid["labels"],
        columns=valid["columns"],
        splits=splits["rows"],
    )
    write_text(reports / "data_card.md", card)

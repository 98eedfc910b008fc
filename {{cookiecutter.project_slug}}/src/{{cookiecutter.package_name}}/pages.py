"""What people read: pages of one style that need no other file, and tables on the terminal."""

import base64
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .provenance import write_text

TONES = {
    "pass": "good",
    "valid": "good",
    "no alarm": "good",
    "proven": "good",
    "fail": "bad",
    "invalid": "bad",
    "alarm": "bad",
    "unanswered": "bad",
    "not yet": "unsure",
    "cannot tell": "unsure",
    "not applicable": "quiet",
}
COLOURS = {"good": "green", "bad": "red", "unsure": "yellow", "quiet": "dim"}
NUMBER = re.compile(r"([<≤≥] )?[-+]?[\d.,]*(e[-+]\d+)?(nan|inf)?( ?%)?")


@dataclass(frozen=True)
class Text:
    """A paragraph, behind a coloured verdict if there is one."""

    text: str
    verdict: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of text. Verdicts are coloured, columns of numbers stand on the right; on a phone a
    row becomes a block where `stack` says so.
    """

    columns: Sequence[str]
    rows: list[list[str]]
    caption: str = ""
    stack: bool = False

    def is_number(self, column: int) -> bool:
        return column > 0 and all(NUMBER.fullmatch(row[column]) for row in self.rows)


def table(records: Iterable[dict[str, Any]], caption: str = "", stack: bool = False) -> Table:
    """A table of records that have the same keys."""
    rows = list(records)
    cells = [[cell(value) for value in row.values()] for row in rows]
    columns = list(rows[0]) if rows else []
    return Table([str(column).replace("_", " ") for column in columns], cells, caption, stack)


def cell(value: Any) -> str:
    """A value for reading."""
    if isinstance(value, bool):
        return "valid" if value else "invalid"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


@dataclass(frozen=True)
class Picture:
    png: bytes
    caption: str


@dataclass(frozen=True)
class Section:
    title: str
    parts: Sequence[Text | Table | Picture]
    anchor: str = ""


def write(
    path: Path,
    title: str,
    lead: Sequence[Text] = (),
    sections: Iterable[Section] = (),
    footer: str = "",
    template: str = "page.html.j2",
    **values: Any,
) -> None:
    """Writes one self-contained page, whole or not at all: no script, no file or address beside
    it. Everything is escaped. A template of its own gets further values.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    environment.filters["cell"] = cell
    environment.globals["tones"] = TONES
    values |= {"title": title, "lead": lead, "sections": list(sections), "footer": footer}
    page = environment.get_template(template).render(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page + "\n")


def chance(p: float) -> str:
    """A p-value for reading."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3g}"


def wrapped(text: str, width: int) -> str:
    """Words for a plot, in at most five lines."""
    return "\n".join(textwrap.wrap(text, width, max_lines=5, placeholder=" …"))


def today() -> str:
    """The day on which a page is written."""
    return datetime.now(UTC).date().isoformat()


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], stderr: bool = False
) -> None:
    """A table on the terminal, with coloured verdicts."""
    from rich import table, text
    from rich.console import Console

    printed = table.Table(title=title or None, title_justify="left")
    for column in columns:
        printed.add_column(column, overflow="fold")
    for row in rows:
        cells = (text.Text(c, style=COLOURS.get(TONES.get(c, ""), "")) for c in row)
        printed.add_row(*cells)
    Console(stderr=stderr).print(printed)


def draw(drawer: Callable[[Any], None]) -> bytes:
    """PNG of what a function draws into a figure. The same data give the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    import io

    import matplotlib.pyplot as plt

    # Five inches: on a phone a font of 9 points is then still 9 points high.
    # A dollar in a name begins no formula.
    style: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    style["text.parse_math"] = False
    with plt.rc_context(style):
        figure = plt.figure(figsize=(5, 3.2), layout="constrained")
        drawer(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=130, metadata={"Software": None})  # no version of the library
        plt.close(figure)
    return buffer.getvalue()


def draw_all(drawers: dict[str, Callable[[Any], None]], folder: Path) -> dict[str, Path]:
    """Draws into one PNG each in the folder; the files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name.replace(' ', '_')}.png" for name in drawers}
    for name, file in files.items():
        file.write_bytes(draw(drawers[name]))
    return files

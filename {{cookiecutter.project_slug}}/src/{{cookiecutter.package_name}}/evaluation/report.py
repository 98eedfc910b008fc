"""The evaluation as one self-contained page, and as a table on the terminal."""

import base64
from pathlib import Path
from typing import Any

from ..settings import Settings

AT_LEAST = {"M3", "M7"}  # methods whose number must reach the threshold; the others' must stay below it
QUESTIONS = {
    "M3": "How often is it right?",
    "M6": "Is it better than what we would do without it?",
    "M7": "Does it stand up to damaged and hostile inputs?",
    "M8": "Does it ignore what should not matter?",
    "M9": "Does it follow what should matter?",
    "M10": "Do its probabilities mean what they say?",
    "M11": "Does it know when not to answer?",
    "M12": "Is any group served worse?",
}


def summary(content: dict[str, Any], settings: Settings) -> str:
    """Two sentences for somebody who reads no further."""
    name, metric = content["candidate"], settings.evaluation.primary_metric
    value = content["metrics"][name]["test"][metric]
    others = ", ".join(f"{n} {m['test'][metric]:.1%}" for n, m in content["metrics"].items() if n != name)
    failed = [v["title"].lower() for v in content["methods"].values() if v["outcome"] != "pass"]
    verdict = "It passes every method of the gate." if not failed else f"It does not pass: {', '.join(failed)}."
    return f"The {name} reaches {value:.1%} {metric} on test data it has never seen ({others}). {verdict}"


def write(content: dict[str, Any], drawn: dict[str, Path], settings: Settings, path: Path) -> None:
    """Renders report.html.j2 with the plots inside, so that the file can be sent to anybody."""
    import jinja2

    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    pictures = {name: base64.b64encode(file.read_bytes()).decode() for name, file in drawn.items()}
    text = template.render(
        content=content,
        pictures=pictures,
        questions=QUESTIONS,
        summary=summary(content, settings),
        project=settings.project,
        at_least=AT_LEAST,
    )
    path.write_text(text + "\n", encoding="utf-8")


def table(content: dict[str, Any]) -> None:
    """The gate's table: method, number, threshold, verdict, why."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"Quality of the {content['candidate']}", title_justify="left")
    for column in ("method", "number", "threshold", "verdict", "why"):
        shown.add_column(column)
    colours = {"pass": "green", "fail": "red", "cannot tell": "yellow", "not applicable": "dim"}
    for v in content["methods"].values():
        number = "" if v["number"] is None else f"{v['number']:.4g}"
        colour = colours[v["outcome"]]
        shown.add_row(
            f"{v['method']} {v['title']}",
            number,
            f"{'≥' if v['method'] in AT_LEAST else '≤'} {v['threshold']:g}",
            f"[{colour}]{v['outcome']}[/{colour}]",
            v["why"],
        )
    Console(stderr=True).print(shown)

"""The evaluation as one page, and its gate as a table on the terminal."""

from pathlib import Path
from typing import Any

import pandas as pd

from .. import pages
from ..modeling import kinds
from ..settings import Settings
from ..task.baselines import NAME

COLUMNS = ("method", "verdict", "why", "number", "wanted")


def number(verdict: dict[str, Any]) -> str:
    """A method's number for reading."""
    value = verdict["number"]
    if verdict["method"] == "M6" and value is not None:
        return pages.chance(value)
    return pages.cell(value)


def bound(verdict: dict[str, Any]) -> str:
    """The threshold with its direction."""
    if verdict["threshold"] is None:
        return ""
    lower = verdict["details"].get("lower_is_better", verdict["method"] not in ("M3", "M7"))
    return f"{'≤' if lower else '≥'} {verdict['threshold']:g}"


def gate(content: dict[str, Any]) -> list[list[str]]:
    """Rows of the gate's table."""
    return [
        [f"{v['title']} ({v['method']})", v["outcome"], v["why"], number(v), bound(v)]
        for v in content["methods"].values()
    ]


def models(content: dict[str, Any]) -> pages.Table:
    """Every metric of all models on test data."""
    scores = {name: metrics["test"] for name, metrics in content["metrics"].items()}
    frame = pd.DataFrame(scores).rename_axis("metric").reset_index()
    return pages.table(frame.to_dict("records"))


def write(
    content: dict[str, Any],
    seconds: float,
    files: dict[str, Path],
    settings: Settings,
    run: str,
    path: Path,
) -> None:
    """The page with everything inside, so that it can be sent to anybody."""
    data, origin = settings.data, content["provenance"]
    tables = {
        name: pages.table(pd.read_csv(file, dtype=str, keep_default_na=False).to_dict("records"))
        for name, file in files.items()
        if file.suffix == ".csv"
    }
    pages.write(
        path,
        f"{settings.project.title}: is the model good enough?",
        footer=f"Owner {settings.project.owner} · code {origin['code'][:12]} "
        f"· data {origin['data'][:12]}",
        template="evaluation/report.html.j2",
        content=content,
        purpose=kinds.of(data.kind).purpose(data.name, data.labels),
        metric=data.goal.metric,
        classical=NAME,
        seconds=seconds,
        run=run,
        day=pages.today(),
        models=models(content),
        pictures={name: file.read_bytes() for name, file in files.items() if name not in tables},
        tables=tables,
        number=number,
        bound=bound,
    )


def print_gate(content: dict[str, Any], seconds: float) -> None:
    """The gate's table."""
    from rich.console import Console

    title = f"Quality of the {content['candidate']}: {content['verdict']}"
    pages.print_table(title, COLUMNS, gate(content), stderr=True)
    Console(stderr=True).print(f"All methods took {seconds:.1f} s.", highlight=False)

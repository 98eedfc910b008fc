"""What the benchmarks share: the package under its own name, medians of rounds, and the report.

They run in a generated project, whose root is the working directory: `make bench-train`, or with PROJECT=path.
"""

import os
import platform
import statistics
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path.cwd()
PACKAGE = next(p.parent.name for p in (ROOT / "src").glob("*/settings.py"))


def module(name: str) -> ModuleType:
    """A module of the package, whatever the package is called."""
    return import_module(f"{PACKAGE}.{name}")


def parser(text: str | None) -> ArgumentParser:
    made = ArgumentParser(description=text)
    made.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    return made


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}


def report(name: str, measure: Callable[[Any, Namespace], dict[str, float]], arguments: ArgumentParser) -> None:
    """Measures, prints a table and writes reports/bench-<name>.json; what a user got wrong is one
    line, exit code 2.
    """
    given = arguments.parse_intermixed_args()
    try:
        settings = module("params").load(given.overrides)
        figures = measure(settings, given)
    except ValueError as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    content = {
        "bench": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **machine,
        "figures": figures,
    }
    module("provenance").write_json(settings.paths.reports / f"bench-{name}.json", content)
    for figure, value in figures.items():
        print(f"{figure:<60} {value:>10.4g}")

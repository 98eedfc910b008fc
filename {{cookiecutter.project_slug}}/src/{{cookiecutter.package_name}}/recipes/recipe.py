"""Efficiency recipes, each beside the plain run: `recipe precision`, `recipe distill
student=model.width=8`.

Trains or measures variants of the network, prints what each does to metric, size and time, writes
reports/recipe-<name>.json and records a run with a child per variant. Nothing of the pipeline
changes. Settings may follow as `trainer.max_epochs=5`, a recipe's own options as `parts=8`. Exit 1:
the recipe does not do what it should.
"""

import argparse
import inspect
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs
from ..params import load
from ..provenance import write_json
from ..settings import Settings

if TYPE_CHECKING:
    from .variants import Row, Workshop

COMPOSES = True  # the name of the recipe stands where other verbs have overrides
# Each a module beside this one; those that you do not want may be deleted.
NAMES = ("precision", "accumulation", "compile", "quantize", "distill", "lora")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's name comes first; its options and `key=value` may follow."""


def run(_: Settings | None, args: argparse.Namespace) -> int:
    from .. import tracking
    from .variants import Workshop

    name, options, overrides = parse(args.overrides)
    recipe: Callable[..., None] = import_module(f".{name}", __package__).recipe
    settings = load(overrides)
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError("recipes train on one device: choose trainer.devices=1")
    with (
        logs.stage("recipe"),
        tempfile.TemporaryDirectory() as folder,
        tracking.start(settings, f"recipe {name}", tags={"recipe": name}) as record,
    ):
        tracking.record_inputs(record, settings)
        shop = Workshop(settings, record, Path(folder))
        recipe(shop, **options)
        report(shop, name, options, overrides)
    return 1 if shop.failed else 0


def parse(words: list[str]) -> tuple[str, dict[str, Any], list[str]]:
    """The recipe, its own options and the settings on a command line. Raises ValueError that names
    the recipes.
    """
    known = [name for name in NAMES if find_spec(f".{name}", __package__)]
    named = [word for word in words if "=" not in word]
    if len(named) != 1 or named[0] not in known:
        raise ValueError(f"name one recipe: {', '.join(known)}")
    function = import_module(f".{named[0]}", __package__).recipe
    defaults = {
        key: p.default
        for key, p in inspect.signature(function).parameters.items()
        if p.default is not p.empty
    }
    options, overrides = {}, []
    for key, text in (word.split("=", 1) for word in words if "=" in word):
        if key not in defaults:
            overrides.append(f"{key}={text}")
            continue
        try:
            options[key] = type(defaults[key])(text)
        except ValueError:
            raise ValueError(
                f"{key}={text}: {key} takes a number, such as {key}={defaults[key]}"
            ) from None
    return named[0], options, overrides


def report(shop: "Workshop", name: str, options: dict[str, Any], overrides: list[str]) -> None:
    """The table and what is to be said about it: on the terminal, in reports/ and in the tracker."""
    asked = {
        "recipe": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": options,
    }
    content = {
        **asked,
        "overrides": overrides,
        "rows": shop.rows,
        "notes": shop.notes,
        "failed": shop.failed,
    }
    path = shop.settings.paths.reports / f"recipe-{name}.json"
    write_json(path, content)
    shop.run.artifacts([path], "reports")
    print("\n".join([*table(shop.rows), *shop.notes]))


def table(rows: "list[Row]") -> list[str]:
    """Lines of columns; beside each figure its difference (scores) or ratio (costs) to the plain
    run, the first row.
    """
    columns, plain = list(dict.fromkeys(key for row in rows for key in row)), rows[0]

    def cell(row: "Row", key: str) -> str:
        value = row.get(key, "-")
        if isinstance(value, str):
            return value
        text, base = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}", plain.get(key)
        if row is plain or not isinstance(base, float | int):
            return text
        if key.startswith(("val ", "test ")):
            return f"{text} ({value - base:+.4f})"
        return f"{text} (x{value / base:.2f})" if base else text

    texts = [columns, *([cell(row, key) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in texts) for i in range(len(columns))]
    return [
        "  ".join(
            t.ljust(w) if not i else t.rjust(w)
            for i, (t, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in texts
    ]

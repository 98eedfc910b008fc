"""Checks every row and the snapshot as a whole, chunk by chunk; invalid data ends the pipeline,
with one report.

Writes reports/validation.json and .html, the first failing rows of each rule as
reports/invalid_rows.csv, and, for valid data, reports/profile.json, which the next snapshot is
compared with.
"""

import argparse
import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.errors
import pandera.pandas as pa
import pyarrow
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import logs
from ..provenance import data_version, read_json, stamp, write_json
from ..settings import Data, Settings
from ..task.schema import schema
from . import profile
from .checks import EXAMPLES, Check, Whole, at, check, hashes, later, repeats
from .ingest import verified
from .snapshot import chunks

MAX_RULES = (
    200  # (column, rule) pairs kept, each with its count and first rows: what bounds the reports
)
TABLE_ROWS = 1000  # of each pair in invalid_rows.csv
VALUE_LENGTH = 80
TEMPLATE = Path(__file__).with_name("validation.html.j2")
Describe = Callable[[pd.DataFrame, Data], pd.DataFrame]


class Failures:
    """Counts per column and rule, with the first rows of each."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self.first: dict[tuple[str, str], list[dict[str, Any]]] = {}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(
        self, column: str, rule: str, rows: Iterable[int | None], values: Iterable[Any], count: int
    ) -> None:
        key = (column, rule)
        if key not in self.counts and len(self.counts) >= MAX_RULES:
            key = ("further columns", "further rules")
        self.counts[key] = self.counts.get(key, 0) + count
        kept = self.first.setdefault(key, [])
        for row, value in zip(rows, values, strict=False):
            if len(kept) == TABLE_ROWS:
                break
            kept.append({"row": row, "value": repr(value)[:VALUE_LENGTH]})

    def rules(self) -> list[dict[str, Any]]:
        """What the report shows, most frequent first."""
        return [
            {
                "column": column,
                "rule": rule,
                "count": count,
                "first": self.first[column, rule][:EXAMPLES],
            }
            for (column, rule), count in sorted(
                self.counts.items(), key=lambda item: (-item[1], item[0])
            )
        ]

    def table(self) -> list[dict[str, Any]]:
        return [
            {**f, "column": column, "rule": rule}
            for (column, rule), rows in self.first.items()
            for f in rows
        ]


def faults(rules: pa.DataFrameSchema, rows: pd.DataFrame) -> pd.DataFrame | None:
    """Pandera's table of failures, None where there are none."""
    try:
        rules.validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as error:
        return error.failure_cases
    return None


def in_words(rules: pa.DataFrameSchema) -> dict[str, Any]:
    """The schema, as the report and the tracking run keep it."""
    columns = {
        name: {
            "type": str(column.dtype),
            "may be empty": column.nullable,
            "unique": column.unique,
            "rules": [str(rule.error or rule.name) for rule in column.checks],
        }
        for name, column in rules.columns.items()
    }
    return {
        "columns": columns,
        "no others": bool(rules.strict),
        "in this order": bool(rules.ordered),
    }


def structure(rules: pa.DataFrameSchema, file: pyarrow.Schema, failures: Failures) -> set[str]:
    """Names of the columns whose type is wrong. Missing, extra, moved and mistyped columns are told
    once, here.
    """
    empty = file.empty_table().to_pandas()
    found = faults(rules, empty)
    wrong: set[str] = set()
    for rule, cases in (
        found.groupby(found["check"].astype(str), sort=False) if found is not None else []
    ):
        typed = rule.startswith(("dtype(", "dtype:"))
        wrong |= {*cases["column"]} if typed else set()
        names = cases["column" if typed else "failure_case"].astype(str)
        if rule == "column_ordered":  # every column that moved is one case
            failures.add("all columns", rule, [None], [list(empty.columns)], 1)
            continue
        for name, value in zip(names, cases["failure_case"], strict=True):
            failures.add(name, rule, [None], [value], 1)
    return wrong


def relaxed(rules: pa.DataFrameSchema, broken: bool) -> pa.DataFrameSchema:
    """The rules for the rows of a chunk: structure is known by then, and uniqueness spans chunks."""
    rows = rules.update_columns(
        {name: {"unique": False, "required": False} for name in rules.columns}
    )
    rows.strict, rows.ordered, rows.unique = False, False, None
    if broken:  # rules over several columns need all of them
        rows.checks = []
    return rows


def check_types(
    rules: pa.DataFrameSchema, rows: pd.DataFrame, wrong: set[str], start: int, failures: Failures
) -> None:
    """Which values are to blame for a column that should hold numbers and doesn't."""
    for name in wrong & {*rules.columns}:
        if rules.columns[name].dtype is None or not pd.api.types.is_numeric_dtype(
            str(rules.columns[name].dtype)
        ):
            continue
        bad = rows[name][pd.to_numeric(rows[name], errors="coerce").isna() & rows[name].notna()]
        if len(bad):
            failures.add(name, "not a number", (bad.index + start).tolist(), bad, len(bad))


def check_rows(
    rules: pa.DataFrameSchema, rows: pd.DataFrame, start: int, failures: Failures
) -> None:
    """Adds the failing cells of one chunk."""
    found = faults(rules, rows)
    if found is None:
        return
    found = found.dropna(
        subset="index"
    )  # a whole column of an unexpected type here: its empty cells are told
    for (column, rule), cases in found.groupby(
        ["column", found["check"].astype(str)], sort=False, dropna=False
    ):
        first = cases.head(TABLE_ROWS)
        failures.add(
            str(column),
            rule,
            [int(i) + start for i in first["index"]],
            first["failure_case"],
            len(cases),
        )


def inspect(
    path: Path, data: Data, rules: pa.DataFrameSchema, describe: Describe, own: int
) -> tuple[Failures, Whole, pd.DataFrame]:
    """Failures of rows, what the checks over all rows need, and, of valid data, a sample of the
    first `own` rows.
    """
    failures, whole, sample = Failures(), Whole(data), [pd.DataFrame()]
    file = pq.read_schema(path)
    wrong = structure(rules, file, failures)
    lenient = relaxed(rules, broken=bool(failures.total))
    uniques = [[name] for name, column in rules.columns.items() if column.unique] + [
        rules.unique or []
    ]
    keys: dict[str, list[NDArray[np.uint64]]] = {
        ", ".join(names): [] for names in uniques if names and {*names} <= {*file.names}
    }
    step = max(1, own // profile.SAMPLE)
    for start, table in chunks(path):
        rows = table.to_pandas()
        check_types(rules, rows, wrong, start, failures)
        check_rows(lenient, rows.drop(columns=[*wrong]), start, failures)
        whole.add(rows, start)
        for name, parts in keys.items():
            parts.append(hashes(rows[name.split(", ")]))
        chosen = rows.iloc[-start % step : max(0, own - start) : step]
        if not failures.total and len(chosen):
            sample.append(describe(chosen.copy(), data))  # a slice would keep its chunk in memory
    for name, parts in keys.items():
        rows_again = repeats(parts)
        again = rows_again[later(at(parts, rows_again))]
        if len(again):
            failures.add(
                name,
                "unique",
                again[:TABLE_ROWS].tolist(),
                ["repeats an earlier row"] * TABLE_ROWS,
                len(again),
            )
    return failures, whole, pd.concat(sample, ignore_index=True)


def accepted(settings: Settings) -> dict[str, Any] | None:
    """The last valid snapshot's profile, not this one's own; None where there is none of the same
    data set.
    """
    path = settings.paths.reports / "profile.json"
    if not path.is_file():
        return None
    content = read_json(path)
    before = (
        content["previous"] if content["data"] == data_version(settings) else content["profile"]
    )
    return before if content["name"] == settings.data.name else None


def judge_drift(
    before: dict[str, Any] | None, sample: pd.DataFrame, limit: float
) -> tuple[Check, list[Any]]:
    """The check, and the columns that changed most."""
    if before is None or sample.empty:
        why = "no earlier snapshot" if before is None else "not judged: rows are invalid"
        return check("drift since the last snapshot", 0.0, limit, why), []
    found = profile.drift(before, sample, limit)
    if not found:
        return check("drift since the last snapshot", 0.0, limit, "no common columns"), []
    worst = found[0]
    detail = f"{worst['column']}, {worst['detail']}" + (
        "" if worst["ok"] else "; meant? delete reports/profile.json"
    )
    return check("drift since the last snapshot", worst["index"], worst["limit"], detail), found[
        :EXAMPLES
    ]


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Exit code 1 when a rule is broken."""
    with logs.stage("validate") as log:
        rules, before = schema(settings.data), accepted(settings)
        path = verified(settings)
        # Rows that users labelled are the monitor's business: that they differ may be why they were
        # collected.
        own = read_json(settings.paths.raw / "manifest.json")["steps"][0]["rows"]
        failures, whole, sample = inspect(path, settings.data, rules, profile.describe, own)
        drift, changed = judge_drift(before, sample, settings.data.checks.max_drift)
        checks = [*whole.judge(), drift]
        ok = not failures.total and all(c["ok"] for c in checks)
        report: dict[str, Any] = {
            "provenance": stamp(settings, "validate"),
            "name": settings.data.name,
            "ok": ok,
            "rows": whole.rows,
            "failures": failures.total,
            "rules": failures.rules(),
            "checks": checks,
            "drift": changed,
            "labels": whole.labels(),
            "columns": {name: column.statistics() for name, column in whole.columns.items()},
            "schema": in_words(rules),
        }
        write(settings.paths.reports, report, failures)
        if not ok:
            told = [f"{r['column']}: {r['rule']} ({r['count']} times)" for r in report["rules"]]
            told += [
                f"{c['check']}: {c['found']:g}, must be {c['rule']}" for c in checks if not c["ok"]
            ]
            log.error(
                "invalid data, %d failures: %s (reports/validation.html)",
                failures.total,
                "; ".join(told[:5]),
            )
            return 1
        new = {"data": data_version(settings), "name": settings.data.name}
        content = {**new, "profile": profile.profile(sample), "previous": before}
        write_json(settings.paths.reports / "profile.json", content)
        log.info("%d rows valid, %d checks passed", whole.rows, len(checks))
    return 0


def write(folder: Path, report: dict[str, Any], failures: Failures) -> None:
    """The report for programs and for people, and the table of failing rows."""
    from jinja2 import Environment, StrictUndefined

    write_json(folder / "validation.json", report)
    with (folder / "invalid_rows.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ["row", "column", "rule", "value"])
        table.writeheader()
        table.writerows(failures.table())
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(report=report)
    (folder / "validation.html").write_text(page, encoding="utf-8")

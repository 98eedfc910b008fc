"""Checks every row and the snapshot as a whole; invalid data ends the pipeline, with one report.

Writes reports/validation.json and .html, the first failing rows of each rule as
reports/invalid_rows.csv, and, for valid data, reports/profile.json, which the next snapshot is
compared with.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.errors
import pandera.pandas as pa
import pyarrow.parquet as pq

from .. import logs, pages, personal
from ..modeling import kinds
from ..provenance import data_version, read_json, stamp, write_json, write_text
from ..settings import Data, Settings
from ..task.schema import columns as task_columns
from . import checks, histograms
from .ingest import GROUP_ROWS, chunks, source_rows, verified
from .schema import AROUND, holds_numbers, numbers, schema, split_columns

MAX_RULES = 200  # pairs of column and rule in the report
NAMED = 3  # rows of a broken rule whose keys are in the log
TABLE_ROWS = 1000  # of each pair in invalid_rows.csv
VALUE_LENGTH = 80
SAMPLE = 20_000  # rows described, evenly spaced: the quantiles of drift need no more
PAIR = ["column", "rule"]


def failures(rules: pa.DataFrameSchema, rows: pd.DataFrame) -> pd.DataFrame:
    """Each failing value: column, rule, row (none where the whole column is wrong), value."""
    try:
        rules.validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases.astype(object)
        column = cases["column"].fillna(cases["failure_case"])
        names = {"check": "rule", "index": "row", "failure_case": "value"}
        return cases.assign(column=column).rename(columns=names)[[*PAIR, "row", "value"]]
    return pd.DataFrame(columns=[*PAIR, "row", "value"], dtype=object)


def row_failures(
    rules: pa.DataFrameSchema, rows: pd.DataFrame, mistyped: set[str], data: Data
) -> pd.DataFrame:
    """Failures in a chunk of the rows; of a column that should hold numbers and doesn't, the values
    to blame.
    """
    cases = failures(rules, rows).dropna(subset="row")
    parts = [cases[~cases["column"].isin(mistyped)]]
    for name in mistyped:
        if holds_numbers(rules.columns[name]):
            wrong = rows[name][numbers(rows[name], data.decimal, data.thousands).isna()].dropna()
            rule = "not a number: if it means missing, name it in data.missing"
            case = {"column": name, "rule": rule, "row": wrong.index, "value": wrong}
            parts.append(pd.DataFrame(case, dtype=object))
    return pd.concat(parts)


def wrong_types(cases: pd.DataFrame) -> set[str]:
    """Columns of another type than the schema's."""
    return {*cases["column"][cases["rule"].str.startswith("dtype")]}


def wrong_rows(rows: pd.DataFrame, data: Data) -> pd.Series:
    """The first rule that a row's features break, in words, of each row that breaks one. Columns
    that are absent are not judged.
    """
    rules = pa.DataFrameSchema({n: r for n, r in task_columns(data).items() if n in rows})
    mistyped = wrong_types(failures(rules, rows.head(0)))
    no_numbers = {name for name in mistyped if holds_numbers(rules.columns[name])}
    cases = row_failures(rules, rows, no_numbers, data).drop_duplicates("row")
    return (cases["column"] + ": " + cases["rule"]).set_axis(cases["row"])


def inspect(
    path: Path, data: Data, rules: pa.DataFrameSchema, described: int
) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, Any]], pd.DataFrame]:
    """Chunk by chunk: the first failures of each column and rule with the `count` of all, the
    statistics of the columns, histograms, and of valid data a description of some of the first
    rows. Of personal columns there is no value.
    """
    empty = pq.read_schema(path).empty_table().to_pandas()
    first = failures(rules, empty)
    mistyped = wrong_types(first)
    counts, columns, sample = [first.value_counts(PAIR)], [checks.statistics(empty)], []
    marks, parts = personal.marks(data.features), list[pd.DataFrame]()
    for rows in logs.progress(chunks(path), f"%d times {GROUP_ROWS} rows checked"):
        cases = row_failures(rules, rows, mistyped, data)
        counts.append(cases.value_counts(PAIR))
        first = pd.concat([first, cases]).groupby(PAIR, sort=False).head(TABLE_ROWS)
        columns.append(checks.statistics(rows))
        chosen = rows[rows.index < described].iloc[:: max(1, described // SAMPLE)]
        if first.empty and len(chosen):
            sample.append(checks.describe(chosen, data).drop(columns=[*marks], errors="ignore"))
        parts.append(histograms.plain(chosen, [*marks]))
    total = pd.concat(counts).groupby(level=PAIR).sum().rename("count").reset_index()
    pairs = zip(first["value"], first["column"], strict=True)
    values = [repr(personal.shown(value, name, marks))[:VALUE_LENGTH] for value, name in pairs]
    first = first.assign(value=values).merge(total, on=PAIR)
    statistics = checks.merged(columns)
    statistics.loc[statistics.index.isin([*marks]), ["lowest", "highest"]] = None
    bars = histograms.bars(parts, data)
    return first, statistics, bars, pd.concat([pd.DataFrame(), *sample])


def accepted(settings: Settings) -> dict[str, Any] | None:
    """The last valid snapshot's profile, not this one's own; None where there is none of the same
    data set.
    """
    path = settings.paths.reports / "profile.json"
    content = read_json(path) if path.is_file() else {"name": None}
    if content["name"] != settings.data.name:
        return None
    current = content["data"] == data_version(settings)
    last: dict[str, Any] | None = content["previous" if current else "profile"]
    if last:
        for name in personal.marks(settings.data.features):
            last["columns"].pop(name, None)  # its bins are values
    return last


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Exit code 1 when a rule is broken."""
    data, reports = settings.data, settings.paths.reports
    with logs.stage("validate") as log:
        rules, before, path = schema(data), accepted(settings), verified(settings)
        marks = personal.marks(data.features)
        # Rows that users labelled are the monitor's business: that they differ may be why they were
        # collected.
        described = source_rows(settings)
        first, columns, bars, sample = inspect(path, data, rules, described)
        keys = pd.read_parquet(path, columns=[name for name in AROUND if name in columns.index])
        drift = checks.drift(before, sample, data.checks.max_drift) if before else []
        judged = judge(path, keys, columns, described, data)
        judged.append(checks.drift_check(drift, data.checks.max_drift))
        names = personal.rows(keys, marks).get("id", keys.index.to_series())
        first = first.assign(id=names.reindex(first["row"]).to_numpy())  # none of a whole column
        broken = first.groupby(PAIR, sort=False).agg(count=("count", "first"), first=("id", some))
        broken = broken.nlargest(MAX_RULES, "count").reset_index()
        wrong = [f"{r.column}: {r.rule} ({r.count} times: {r.first})" for r in broken.itertuples()]
        wrong += [f"{c['check']}: {c['found']:g} {c['detail']}" for c in judged if not c["ok"]]
        report = {
            "provenance": stamp(settings, "validate"),
            "name": data.name,
            "ok": not wrong,
            "rows": len(keys),
            "failures": int(broken["count"].sum()),
            "rules": records(broken),
            "examples": records(first.groupby(PAIR).head(checks.EXAMPLES)),
            "checks": judged,
            "drift": drift,
            "labels": summary(keys, marks, data),
            "columns": dict(zip(columns.index, records(columns), strict=True)),
            "histograms": bars,
            "schema": in_words(rules),
        }
        write_json(reports / "validation.json", report)
        write_text(reports / "invalid_rows.csv", first.to_csv(index=False, lineterminator="\n"))
        page(report, settings.project.title, reports / "validation.html")
        if wrong:
            log.error("invalid data: %s (reports/validation.html)", "; ".join(wrong[:5]))
            log.error("mend the source and run `make refresh`, or configs/ and `make pipeline`")
            return 1
        for name in sample.columns[sample.nunique() < 2].intersection(columns.index):
            log.warning("column %s has one value or none: it tells the model nothing", name)
        new = {"data": data_version(settings), "name": data.name, "previous": before}
        write_json(reports / "profile.json", {**new, "profile": checks.profile(sample)})
        log.info("%d rows valid, %d checks passed", len(keys), len(judged))
    return 0


def summary(keys: pd.DataFrame, marks: dict[str, Any], data: Data) -> dict[str, float]:
    """The labels in a few numbers, where there are any to be shown."""
    if "label" in marks or "label" not in keys:
        return {}
    numbers: dict[str, float] = kinds.of(data.kind).label_summary(keys["label"], data)
    return numbers


def judge(
    path: Path, keys: pd.DataFrame, columns: pd.DataFrame, described: int, data: Data
) -> list[checks.Check]:
    """The checks over all rows. Feedback lacks what only splits, for which no limit on missing
    values is meant.
    """
    split_by = [name for name in split_columns(data) if name in columns.index]
    present = [no_value(path, name, described) for name in split_by]
    return [*checks.judge(keys, columns.drop(split_by), data), *present]


def some(ids: pd.Series) -> str:
    """The first keys of rows."""
    return ", ".join(map(str, ids.dropna().head(NAMED)))


def no_value(path: Path, name: str, described: int) -> checks.Check:
    """The check that each row of the source has a value in a column by which it is split."""
    values = pd.read_parquet(path, columns=[name])[name].head(described)
    empty = values.index[values.isna()]
    return checks.check(f"rows without `{name}`", len(empty), 0, "data.split needs it", empty)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON takes them."""
    return list(json.loads(table.to_json(orient="records")))


def in_words(rules: pa.DataFrameSchema) -> dict[str, Any]:
    """The schema, as the report and the tracking run keep it."""
    columns = {}
    for name, column in rules.columns.items():
        texts = [str(rule.error or rule.name) for rule in column.checks]
        columns[name] = {"type": str(column.dtype), "may be empty": column.nullable, "rules": texts}
    return {"columns": columns}


def page(report: dict[str, Any], project: str, path: Path) -> None:
    """The report for people."""
    tables = {
        "Rules that values break": report["rules"],
        "First rows and values that break one; more in invalid_rows.csv": report["examples"],
        "Checks over all rows": report["checks"],
        "Change since the last snapshot": report["drift"],
        "Labels": [{"label": name, "found": n} for name, n in report["labels"].items()],
        "Columns": [{"column": name, **column} for name, column in report["columns"].items()],
    }
    sections = [
        pages.Section(title, [pages.table(records, stack=len(records[0]) > 5)])
        for title, records in tables.items()
        if records
    ]
    origin = report["provenance"]
    pages.write(
        path,
        f"{project}: are the data fit to train on?",
        sections=sections,
        footer=f"data {origin['data']}, code {origin['code']}",
        template="data/validation.html.j2",
        report=report,
        day=pages.today(),
    )

"""Checks every row and the snapshot as a whole; invalid data ends the pipeline, with one report.

Writes reports/validation.json and .html, the first failing rows of each rule as
reports/invalid_rows.csv, and, for valid data, reports/profile.json, which the next snapshot is
compared with.
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.errors
import pandera.pandas as pa
import pyarrow.parquet as pq

from .. import logs
from ..modeling import kinds
from ..provenance import data_version, read_json, stamp, write_json
from ..settings import Data, Settings
from . import checks
from .ingest import MANIFEST, chunks, verified
from .schema import AROUND, schema

MAX_RULES = 200  # pairs of column and rule in the report
TABLE_ROWS = 1000  # of each pair in invalid_rows.csv
VALUE_LENGTH = 80
SAMPLE = 20_000  # rows described, evenly spaced: the quantiles of drift need no more
PAIR = ["column", "rule"]
TEMPLATE = Path(__file__).with_name("validation.html.j2")


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


def row_failures(rules: pa.DataFrameSchema, rows: pd.DataFrame, mistyped: set[str]) -> pd.DataFrame:
    """Failures in a chunk of the rows; of a column that should hold numbers and doesn't, the values
    to blame.
    """
    cases = failures(rules, rows).dropna(subset="row")
    parts = [cases[~cases["column"].isin(mistyped)]]
    for name in mistyped:
        if rules.columns[name].dtype == pa.Column(float).dtype:
            numbers = pd.to_numeric(rows[name], errors="coerce")
            wrong = rows[name][numbers.isna()].dropna()
            case = {"column": name, "rule": "not a number", "row": wrong.index, "value": wrong}
            parts.append(pd.DataFrame(case, dtype=object))
    return pd.concat(parts)


def inspect(
    path: Path, data: Data, rules: pa.DataFrameSchema, described: int
) -> tuple[Counter[tuple[str, str]], pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Number of failures per column and rule, the first of each, statistics of the columns, and of
    valid data a description of some of the first rows.
    """
    empty = pq.read_schema(path).empty_table().to_pandas()
    first = failures(rules, empty)
    mistyped = {*first["column"][first["rule"].str.startswith("dtype")]}
    counts = Counter(first[PAIR].itertuples(index=False, name=None))
    statistics, sample = [checks.statistics(empty)], [pd.DataFrame()]
    for rows in chunks(path):
        cases = row_failures(rules, rows, mistyped)
        counts.update(cases[PAIR].itertuples(index=False, name=None))
        first = pd.concat([first, cases]).groupby(PAIR, sort=False).head(TABLE_ROWS)
        statistics.append(checks.statistics(rows))
        chosen = rows[rows.index < described].iloc[:: max(1, described // SAMPLE)]
        if not counts and len(chosen):
            sample.append(checks.describe(chosen, data))
    first["value"] = first["value"].map(repr).str[:VALUE_LENGTH]
    return counts, first, checks.merged(statistics), pd.concat(sample)


def accepted(settings: Settings) -> dict[str, Any] | None:
    """The last valid snapshot's profile, not this one's own; None where there is none of the same
    data set.
    """
    path = settings.paths.reports / "profile.json"
    content = read_json(path) if path.is_file() else {"name": None}
    if content["name"] != settings.data.name:
        return None
    last: dict[str, Any] | None = content["profile"]
    return content["previous"] if content["data"] == data_version(settings) else last


def whole_checks(
    path: Path, columns: pd.DataFrame, data: Data
) -> tuple[list[checks.Check], dict[str, float]]:
    """The checks over all rows, and the summary of the labels; both need the columns that are in
    every snapshot.
    """
    judged = checks.completeness(columns, pq.read_metadata(path).num_rows, data)
    if not {*AROUND} <= {*columns.index}:
        return judged, {}
    rows = pd.read_parquet(path, columns=[*AROUND])
    judged += checks.key_checks(rows, data)
    kind, labels = kinds.of(data.kind), rows["label"].dropna()
    if columns.loc["label", "type"] != str(kind.label_column(data).dtype):
        return judged, {}
    spread = checks.check(*kind.label_spread(labels, data), least=True)
    return [*judged, spread], kind.label_summary(labels, data)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Exit code 1 when a rule is broken."""
    data, reports = settings.data, settings.paths.reports
    with logs.stage("validate") as log:
        rules, before, path = schema(data), accepted(settings), verified(settings)
        # Rows that users labelled are the monitor's business: that they differ may be why they were
        # collected.
        own = read_json(settings.paths.raw / MANIFEST)["steps"][0]["rows"]
        counts, first, columns, sample = inspect(path, data, rules, own)
        judged, labels = whole_checks(path, columns, data)
        drift = checks.drift(before, sample, data.checks.max_drift) if before else []
        judged.append(checks.drift_check(drift, data.checks.max_drift))
        wrong = [f"{column}: {rule} ({n} times)" for (column, rule), n in counts.most_common()]
        wrong += [f"{c['check']}: {c['found']:g}" for c in judged if not c["ok"]]
        pairs = [(*pair, n) for pair, n in counts.most_common(MAX_RULES)]
        examples = first.groupby(PAIR, sort=False).head(checks.EXAMPLES)
        report = {
            "provenance": stamp(settings, "validate"),
            "name": data.name,
            "ok": not wrong,
            "rows": judged[0]["found"],
            "failures": counts.total(),
            "rules": [dict(zip([*PAIR, "count"], pair, strict=True)) for pair in pairs],
            "examples": examples.astype(object).where(examples.notna(), None).to_dict("records"),
            "checks": judged,
            "drift": drift,
            "labels": labels,
            "columns": columns.astype(object).where(columns.notna(), None).to_dict("index"),
            "schema": in_words(rules),
        }
        write_json(reports / "validation.json", report)
        first.to_csv(reports / "invalid_rows.csv", index=False)
        page(report, reports / "validation.html")
        if wrong:
            log.error("invalid data: %s (reports/validation.html)", "; ".join(wrong[:5]))
            return 1
        new = {"data": data_version(settings), "name": data.name, "previous": before}
        write_json(reports / "profile.json", {**new, "profile": checks.profile(sample)})
        log.info("%d rows valid, %d checks passed", report["rows"], len(judged))
    return 0


def in_words(rules: pa.DataFrameSchema) -> dict[str, Any]:
    """The schema, as the report and the tracking run keep it."""
    columns = {}
    for name, column in rules.columns.items():
        texts = [str(rule.error or rule.name) for rule in column.checks]
        columns[name] = {
            "type": str(column.dtype),
            "may be empty": column.nullable,
            "rules": texts,
        }
    return {"columns": columns}


def page(report: dict[str, Any], path: Path) -> None:
    """The report for people."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    path.write_text(template.render(report=report), encoding="utf-8")

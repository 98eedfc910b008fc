"""Checks every row and the snapshot as a whole; invalid data ends the pipeline, all failures in one report."""

import argparse
from typing import Any

import pandas as pd
import pandera.errors

from .. import logs
from ..provenance import stamp, write_json
from ..settings import Checks, Settings
from .ingest import read
from .schema import schema

MAX_FAILURES = 1000  # shown; all are counted
EXAMPLE_LENGTH = 80


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond the settings."""


def row_failures(rows: pd.DataFrame, settings: Settings) -> tuple[list[dict[str, Any]], int]:
    """Failing cells (row number, column, rule, value), the first of them, and the number of all."""
    try:
        schema(settings.data).validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases.sort_values("index", kind="stable", na_position="first")
        first = [
            {
                "row": None if pd.isna(case.index) else int(case.index),
                "column": str(case.column),
                "rule": str(case.check),
                "value": repr(case.failure_case)[:EXAMPLE_LENGTH],
            }
            for case in cases.head(MAX_FAILURES).itertuples(index=False, name="Case")
        ]
        return first, len(cases)
    return [], 0


def snapshot_checks(rows: pd.DataFrame, labels: list[str], limits: Checks) -> list[dict[str, Any]]:
    """Completeness and label checks over all rows: number found, limit, verdict."""
    features = rows.drop(columns=["label"])
    conflicts = rows.dropna(subset="label").groupby("content")["label"].nunique().gt(1).mean()
    shares = rows["label"].value_counts(normalize=True).reindex(labels, fill_value=0.0)
    found = {
        "missing values": (float(features.isna().to_numpy().mean()), limits.max_missing, "at most"),
        "unlabeled rows": (float(rows["label"].isna().mean()), limits.max_unlabeled, "at most"),
        "duplicate rows": (float(rows.duplicated("content").mean()), limits.max_duplicates, "at most"),
        "equal rows with different labels": (float(conflicts), 0.0, "at most"),
        "share of the smallest class": (float(shares.min()), limits.min_class_share, "at least"),
    }
    return [
        {
            "check": name,
            "found": round(value, 6),
            "rule": f"{rule} {limit:g}",
            "ok": value <= limit if rule == "at most" else value >= limit,
        }
        for name, (value, limit, rule) in found.items()
    ]


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes reports/validation.json and .html; exit code 1 when a rule is broken."""
    with logs.stage("validate") as log:
        rows = read(settings)
        failures, total = row_failures(rows, settings)
        structure_broken = any(f["rule"].startswith(("column_in", "column_ordered")) for f in failures)
        checks = [] if structure_broken else snapshot_checks(rows, settings.data.labels, settings.data.checks)
        ok = not total and all(c["ok"] for c in checks)
        report = {
            "provenance": stamp(settings, "validate"),
            "ok": ok,
            "rows": len(rows),
            "failures": total,
            "first_failures": failures,
            "checks": checks,
            "class_counts": {k: int(v) for k, v in rows["label"].value_counts().sort_index().items()}
            if "label" in rows
            else {},
            "schema": str(schema(settings.data)),
        }
        write_json(settings.paths.reports / "validation.json", report)
        html(report, settings)
        if not ok:
            broken = [f"{c['check']}: {c['found']:g}, must be {c['rule']}" for c in checks if not c["ok"]]
            first = [f"row {f['row']}, {f['column']}: {f['rule']}" for f in failures[:3]]
            log.error(
                "invalid data, %d failures: %s (all in reports/validation.html)", total, "; ".join(first + broken)
            )
            return 1
        log.info("%d rows valid, %d checks passed", len(rows), len(checks))
    return 0


def html(report: dict[str, Any], settings: Settings) -> None:
    """The same report for people."""
    tables = [pd.DataFrame(report["checks"]), pd.DataFrame(report["first_failures"])]
    body = "".join(t.to_html(index=False, border=0) if len(t) else "<p>No failing rows.</p>" for t in tables)
    verdict = "valid" if report["ok"] else f"invalid: {report['failures']} failures"
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Data validation</title><style>body{font:16px system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "td,th{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #ddd}"
        "table{border-collapse:collapse;margin:1rem 0}</style>"
        f"<h1>Data validation: {verdict}</h1><p>{report['rows']} rows of {settings.data.name}.</p>{body}</html>\n"
    )
    (settings.paths.reports / "validation.html").write_text(text, encoding="utf-8")

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from faults import again, store
from harness import Project, benchmark, module

validate, checks, snapshot = module("data.validate"), module("data.checks"), module("data.snapshot")
bench = benchmark("data")


def report(project: Project) -> dict:  # type: ignore[type-arg]
    return dict(
        module("provenance").read_json(project.settings().paths.reports / "validation.json")
    )


@pytest.mark.row("D5")
def test_good_data_pass(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    found = report(project)
    assert found["ok"] and found["rules"] == [] and found["schema"]["columns"]["id"]["unique"]
    rows = module("data.ingest").read(project.settings())
    assert {
        name: c["missing"] for name, c in found["columns"].items()
    } == rows.isna().sum().to_dict()


@pytest.mark.row("D5", "D6")
def test_chunks_change_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows keep their numbers, and what spans chunks is found."""
    project.run("ingest")
    rows = module("task.schema").break_row(
        again(module("data.ingest").read(project.settings()), 30)
    )
    rows = rows.assign(
        id=rows["id"].where(rows.index != 150, rows["id"][2]).where(rows.index != 140, None),
        extra=1,
    )
    store(project, rows)
    found = []
    for size in (100_000, 64):
        monkeypatch.setattr(snapshot, "CHUNK_ROWS", size)
        assert project.run("validate") == 1
        found.append(report(project))
    assert found[0] == found[1]
    unique = next(rule for rule in found[0]["rules"] if rule["rule"] == "unique")
    assert unique["count"] == 1 and unique["first"][0]["row"] == 150
    empty = next(rule for rule in found[0]["rules"] if rule["rule"] == "not_nullable")
    assert (empty["column"], empty["count"], empty["first"][0]["row"]) == ("id", 1, 140)
    duplicates = next(c for c in found[0]["checks"] if c["check"] == "duplicate rows")
    assert duplicates["rows"] == list(range(len(rows) - 30, len(rows)))[:20]
    assert (
        sum(rule["count"] for rule in found[0]["rules"] if rule["rule"] == "column_in_schema") == 1
    )


@pytest.mark.row("D5")
def test_many_faults_make_small_reports(tmp_path: Path, project: Project) -> None:
    bench.write_table(tmp_path / "table.parquet", 50_000, 4)
    file = bench.pq.read_schema(tmp_path / "table.parquet")
    rules = bench.rules(file.names).update_columns(
        {f"x{j}": {"checks": bench.pa.Check.gt(100)} for j in range(4)}
    )
    failures, _, sample = validate.inspect(
        tmp_path / "table.parquet", bench.made_up(), rules, bench.described, 50_000
    )
    assert (
        failures.counts == {(f"x{j}", "greater_than(100)"): 50_000 for j in range(4)}
        and sample.empty
    )
    assert [f["row"] for f in failures.rules()[0]["first"]] == list(range(20))
    project.run("ingest")
    project.run("validate")
    folder = project.settings().paths.reports
    validate.write(
        folder, {**report(project), "rules": failures.rules(), "failures": failures.total}, failures
    )
    assert all(
        (folder / f"validation.{kind}").stat().st_size < 100_000 for kind in ("json", "html")
    )
    with (folder / "invalid_rows.csv").open(encoding="utf-8") as lines:
        table = list(csv.DictReader(lines))
    assert len(table) == 4000 and {row["rule"] for row in table} == {"greater_than(100)"}


@pytest.mark.row("D5")
def test_many_rules_are_bounded_too() -> None:
    failures = validate.Failures()
    for j in range(5000):
        failures.add(f"column {j}", "a rule", [j], ["x" * 1000], 1)
    assert failures.total == 5000 and len(failures.rules()) == validate.MAX_RULES + 1
    assert len(str(failures.rules())) < 100_000


@pytest.mark.row("D5")
def test_values_of_a_wrong_type_are_listed(tmp_path: Path, project: Project) -> None:
    bench.write_table(tmp_path / "table.parquet", 300, 3)
    rows = pd.read_parquet(tmp_path / "table.parquet")
    texts = rows["x1"].astype(str).where(rows.index != 17, "unknown")
    rows.assign(x1=texts).to_parquet(tmp_path / "table.parquet", index=False)
    failures, _, _ = validate.inspect(
        tmp_path / "table.parquet", bench.made_up(), bench.rules([*rows]), bench.described, 300
    )
    told = {rule: first for (column, rule), first in failures.first.items() if column == "x1"}
    assert (
        told["not a number"] == [{"row": 17, "value": "'unknown'"}] and "dtype('float64')" in told
    )


@pytest.mark.row("D5")
@pytest.mark.parametrize(
    ("value", "good"),
    [(1.0, True), (None, True), (np.inf, False), (np.nan, True), (-1.0, False), (501.0, False)],
)
def test_labels_that_are_values_are_finite_and_in_their_range(value: float, good: bool) -> None:
    data = bench.made_up()
    limits = data.checks.model_copy(update={"label_range": (0.0, 500.0)})
    data = data.model_copy(update={"kind": "regression", "labels": [], "checks": limits})
    rules = bench.pa.DataFrameSchema({"label": checks.label_column(data)})
    assert (validate.faults(rules, pd.DataFrame({"label": [3.0, value]})) is None) == good


@pytest.mark.row("D6")
def test_contradictions_are_counted_for_classes_and_values() -> None:
    content = np.array([7, 8, 7, 9, 8, 7], np.uint64)
    assert checks.conflicts(content, np.array([1.5, 2, 1.5, 3, 2.5, 1.5])).tolist() == [4]
    assert checks.conflicts(content, np.array([0, 1, 0, 2, 1, 3])).tolist() == [5]
    parts = [content[:4], content[4:]]
    rows = checks.repeats(parts)
    assert rows.tolist() == [0, 1, 2, 4, 5] and checks.at(parts, rows).tolist() == [7, 8, 7, 8, 7]


@pytest.mark.slow
@pytest.mark.row("D5", "D7")
@pytest.mark.parametrize("part", ["validate", "split"])
def test_memory_does_not_grow_with_the_rows(part: str, tmp_path: Path, project: Project) -> None:
    """Beyond the hashes per row that docs/data_checks.md names; the rows themselves are about 240
    bytes each.
    """
    peaks = []
    for n in (200_000, 600_000):
        bench.write_table(tmp_path / f"{n}.parquet", n, 20)
        peaks.append(bench.measure(part, tmp_path / f"{n}.parquet")["mebibytes"])
    assert (peaks[1] - peaks[0]) * 2**20 / 400_000 < 80

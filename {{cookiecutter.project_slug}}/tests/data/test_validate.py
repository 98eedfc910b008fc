import json

import pandas as pd
import pytest
from faults import again, break_row, store
from harness import Project, module

validate = module("data.validate")


def report(project: Project) -> dict:  # type: ignore[type-arg]
    return dict(
        module("provenance").read_json(project.settings().paths.reports / "validation.json")
    )


def table(project: Project) -> pd.DataFrame:
    return pd.read_csv(project.settings().paths.reports / "invalid_rows.csv")


@pytest.mark.row("D5", "D6")
def test_good_data_pass(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows, results = module("data.ingest").read(project.settings()), report(project)
    assert results["ok"] and results["rules"] == [] and table(project).empty
    missing = {name: column["missing"] for name, column in results["columns"].items()}
    assert missing == rows.isna().sum().to_dict()
    assert [*results["schema"]["columns"]] == [*rows.columns]


@pytest.mark.row("D5", "D6")
def test_faults_are_found_in_every_chunk_with_the_number_of_their_row(project: Project) -> None:
    project.run("ingest")
    rows = break_row(again(module("data.ingest").read(project.settings()), 30))
    rows["id"] = rows["id"].where(rows.index != 150, rows["id"][2]).where(rows.index != 140, None)
    results = []
    for group in (None, 64):
        store(project, rows.assign(extra=1), group)
        assert project.run("validate") == 1
        results.append(report(project))
    whole, parts = results
    for part in ("failures", "checks", "columns"):
        assert whole[part] == parts[part]
    broken = {(e["column"], e["row"]): e["rule"] for e in whole["examples"]}
    assert broken["id", 140] == "not_nullable" and broken["extra", None] == "column_in_schema"
    assert (rows.columns[1], 1) in broken
    by_name = {c["check"]: c["rows"] for c in whole["checks"]}
    assert by_name["repeated keys"] == [150]
    assert by_name["duplicate rows"] == list(range(len(rows) - 30, len(rows)))[:20]


@pytest.mark.row("D5")
def test_many_failures_make_small_reports(project: Project) -> None:
    project.run("ingest")
    rows = module("data.ingest").read(project.settings())
    store(project, pd.concat([rows.assign(content="nonsense")] * 10, ignore_index=True))
    assert project.run("validate") == 1
    (rule,) = report(project)["rules"]
    assert rule["column"] == "content" and rule["count"] == 10 * len(rows)
    assert rule["first"] == ", ".join(rows["id"][:3])  # rows are named by their keys
    assert table(project)["row"].tolist() == list(range(validate.TABLE_ROWS))
    folder = project.settings().paths.reports
    assert all((folder / f"validation.{k}").stat().st_size < 100_000 for k in ("json", "html"))


@pytest.mark.row("D5")
def test_a_text_among_numbers_is_listed(project: Project) -> None:
    pa, data = validate.pa, project.settings().data
    rules = pa.DataFrameSchema({"x": pa.Column(float, pa.Check.gt(0))})
    rows = pd.DataFrame({"x": ["1.5", "unknown", None]}, index=[10, 11, 12])
    cases = validate.row_failures(rules, rows, {"x"}, data)
    (case,) = cases.to_dict("records")
    assert (case["row"], case["value"]) == (11, "unknown") and "data.missing" in case["rule"]


@pytest.mark.row("D6")
def test_a_contradiction_is_one_label_too_many_for_equal_rows(project: Project) -> None:
    data = project.settings().data
    labels = data.labels[:2] or [1.5, 2.5]
    keys = pd.DataFrame({"id": range(6), "content": [*"aabbbc"]})
    keys["label"] = [labels[i] for i in (0, 0, 0, 1, 0, 1)]
    columns = module("data.checks").statistics(keys)
    judged = {c["check"]: c for c in module("data.checks").judge(keys, columns, data)}
    assert judged["equal rows with different labels"]["rows"] == [3]
    assert judged["duplicate rows"]["rows"] == [1, 3, 4]


@pytest.mark.row("D5")
def test_feedback_needs_no_value_of_a_column_that_only_splits(project: Project) -> None:
    """It has none, which no limit on missing values is meant for; a row of the source needs one."""
    project.run("ingest")
    rows, key = module("data.ingest").read(project.settings()), "data.split.key=site"
    source = module("data.ingest").source_rows(project.settings())
    sites = [f"s{i // 3}" for i in range(source)]
    feedback = rows.head(source // 2).assign(id=[f"f{i}" for i in range(source // 2)])
    changed = feedback.assign(
        label=feedback["label"], content=[f"{i:064x}" for i in range(len(feedback))]
    )
    columns = [*rows.columns[:-2], "site", "label", "content"]
    store(project, pd.concat([rows.assign(site=sites), changed], ignore_index=True)[columns])
    assert project.run("validate", key) == 0
    store(project, pd.concat([rows.assign(site=[None, *sites[1:]])])[columns])
    assert project.run("validate", key) == 1


@pytest.mark.row("D5")
def test_every_column_has_bars_of_its_kind() -> None:
    histograms, days = module("data.histograms"), pd.date_range("2024-01-01", periods=60)
    rows = pd.DataFrame(
        {"id": map(str, range(60)), "x": range(60), "day": days.strftime("%d.%m.%Y")}
    )
    rows = rows.assign(c=["a", "b", "b"] * 20, name="somebody", file=[b"12"] * 30 + [b"1"] * 30)
    rows = rows.assign(flag=[True, False] * 30, none=None, far=[float("inf"), *range(59)])
    features = {"dates": {"day": {"format": "%d.%m.%Y"}}}
    data = module("settings").Data.model_construct(features=features)
    bars = histograms.bars([histograms.plain(rows, ["name"])], data)
    by_name = {column.pop("column"): column for column in bars}
    assert json.dumps(bars) and {"x", "day", "c", "flag", "far", "file: bytes"} <= {*by_name}
    assert by_name["far"]["high"] == "58" and "name" not in by_name
    assert (by_name["x"]["low"], by_name["x"]["high"]) == ("0", "59")
    assert by_name["day"]["low"] == "2024-01-01" and by_name["c"]["bars"][0][0] == "b"
    assert sum(count for _, count in by_name["file: bytes"]["bars"]) == 60


@pytest.mark.row("D5")
def test_a_mark_of_a_column_that_does_not_exist_is_refused(project: Project) -> None:
    data = project.settings().data
    features = {**data.features, "personal": {"nane": "drop"}}
    with pytest.raises(ValueError, match=r"personal names no columns: \['nane'\]"):
        module("data.schema").schema(data.model_copy(update={"features": features}))

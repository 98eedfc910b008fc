import json
from collections.abc import Callable

import pandas as pd
import pytest
from harness import Project, module

Change = Callable[[pd.DataFrame], pd.DataFrame]


def store(project: Project, rows: pd.DataFrame) -> None:
    """Replaces the snapshot by these rows, with a manifest that fits."""
    provenance, ingest = module("provenance"), module("data.ingest")
    path = project.settings().paths.raw / ingest.FILE
    rows.to_parquet(path, index=False)
    manifest = provenance.read_json(path.with_name("manifest.json"))
    manifest["files"][ingest.FILE]["sha256"] = provenance.sha256(path)
    provenance.write_json(path.with_name("manifest.json"), manifest)


FAULTS: dict[str, tuple[Change, str]] = {
    "a broken row": (lambda r: module("data.schema").break_row(r), '"row": 1'),
    "a duplicate key": (lambda r: r.assign(id=r["id"].where(r.index != 3, r["id"][2])), "unique"),
    "an unknown label": (lambda r: r.assign(label=r["label"].where(r.index != 5, "nonsense")), "isin"),
    "an unlabeled row": (lambda r: r.assign(label=r["label"].where(r.index != 5, None)), "unlabeled rows"),
    "reordered columns": (lambda r: r[r.columns[::-1]], "column_ordered"),
    "an extra column": (lambda r: r.assign(extra=1), "column_in_schema"),
    "a missing column": (lambda r: r.drop(columns="label"), "column_in_dataframe"),
    "many duplicates": (lambda r: pd.concat([r, r.assign(id=r["id"] + "x")], ignore_index=True), "duplicate rows"),
    "a label conflict": (
        lambda r: pd.concat(
            [r, r.head(1).assign(id="x", label=lambda d: "1" if d["label"][0] != "1" else "2")], ignore_index=True
        ),
        "different labels",
    ),
}


@pytest.mark.row("D5", "D6")
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_and_ends_the_pipeline(fault: str, project: Project) -> None:
    project.run("ingest")
    change, named = FAULTS[fault]
    store(project, change(module("data.ingest").read(project.settings())))
    assert project.run("validate") == 1
    text = (project.settings().paths.reports / "validation.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert not report["ok"]
    broken = json.dumps(report["first_failures"]) + json.dumps([c for c in report["checks"] if not c["ok"]])
    assert named in broken


@pytest.mark.row("D5")
def test_all_failures_are_counted_and_the_report_stays_small(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module("data.validate"), "MAX_FAILURES", 10)
    project.run("ingest")
    store(project, module("data.ingest").read(project.settings()).assign(label="nonsense"))
    assert project.run("validate") == 1
    report = module("provenance").read_json(project.settings().paths.reports / "validation.json")
    assert report["failures"] == report["rows"] and len(report["first_failures"]) == 10


@pytest.mark.row("D5")
def test_good_data_pass(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)

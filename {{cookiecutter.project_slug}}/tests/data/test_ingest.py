from pathlib import Path

import pandas as pd
import pytest
from harness import Project, module

ingest = module("data.ingest")


def test_the_same_source_gives_the_same_bytes(project: Project) -> None:
    project.run("ingest")
    first = (project.settings().paths.raw / "manifest.json").read_bytes()
    project.run("ingest")
    assert (project.settings().paths.raw / "manifest.json").read_bytes() == first


def test_a_damaged_snapshot_is_refused(project: Project) -> None:
    project.run("ingest")
    path = project.settings().paths.raw / ingest.FILE
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="differs from its manifest"):
        project.run("validate")


def test_a_failing_source_leaves_the_last_snapshot(project: Project) -> None:
    project.run("ingest")
    before = module("provenance").data_version(project.settings())
    with pytest.raises(Exception, match="nowhere"):
        project.run("ingest", "data.source._target_=nowhere.load")
    assert module("provenance").data_version(project.settings()) == before


def test_labelled_feedback_becomes_rows(project: Project) -> None:
    project.run("ingest")
    rows = pd.read_parquet(project.settings().paths.raw / ingest.FILE).head(3).drop(columns="content")
    rows.assign(id=lambda r: "feedback " + r["id"]).to_parquet(Path("data/feedback/one.parquet"), index=False)
    project.run("ingest")
    manifest = module("provenance").read_json(project.settings().paths.raw / "manifest.json")
    counts = {step["step"]: step["rows"] for step in manifest["steps"]}
    assert counts["feedback added"] == counts["source"] + 3

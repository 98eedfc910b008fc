import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from faults import drop_a_row, from_file, version
from harness import PACKAGE, Project, module

ingest = module("data.ingest")
provenance = module("provenance")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What `ingest` logs, also where its logger, which does not propagate, is made in this test."""
    logger = logging.getLogger(f"{PACKAGE}.ingest")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_the_same_source_gives_the_same_bytes(project: Project) -> None:
    project.run("ingest")
    first = version(project)
    project.run("ingest")
    assert version(project) == first


@pytest.mark.row("D2")
def test_new_data_make_a_new_version(project: Project) -> None:
    path = from_file(project)
    project.run("ingest")
    before, rows = version(project), len(ingest.read(project.settings()))
    drop_a_row(path)
    project.run("ingest")
    assert version(project) != before and len(ingest.read(project.settings())) == rows - 1


def test_a_damaged_snapshot_is_refused_and_mended(project: Project) -> None:
    project.run("ingest")
    path = project.settings().paths.raw / ingest.FILE
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="differs from its manifest"):
        project.run("validate")
    project.run("ingest")
    version(project)


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.row("D2")
@pytest.mark.parametrize(
    "failure", ["source gone", "source damaged", "disk full", "disk full later"]
)
def test_a_failure_leaves_the_last_snapshot_and_says_so(
    failure: str,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    log: pytest.LogCaptureFixture,
) -> None:
    path = from_file(project)
    project.run("ingest")
    before = version(project)
    drop_a_row(path)
    if failure == "source gone":
        path.unlink()
    elif failure == "source damaged":
        path.write_bytes(path.read_bytes()[:-100])
    elif failure == "disk full":
        monkeypatch.setattr(pd.DataFrame, "to_parquet", no_space)
    else:
        monkeypatch.setattr(ingest, "write_json", no_space)
    with pytest.raises((ValueError, OSError)):
        project.run("ingest")
    monkeypatch.undo()
    assert "data/raw keeps the last good snapshot" in log.text and version(project) == before
    assert {p.name for p in Path("data").iterdir()} <= {"feedback", "raw", path.name}


def test_a_bug_in_a_source_keeps_its_traceback(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("task.source"), "bundled", lambda **_: [][0])
    with pytest.raises(IndexError):
        project.run("ingest")


@pytest.mark.row("D2")
def test_rows_and_bytes_are_logged_before_and_after_each_step(
    project: Project, log: pytest.LogCaptureFixture
) -> None:
    project.run("ingest")
    fields = [vars(record)["fields"] for record in log.records if "fields" in vars(record)]
    steps = [(f["before"], f["after"]) for f in fields if "after" in f]
    assert len(steps) == 3 and all(after["rows"] > 0 and after["bytes"] > 0 for _, after in steps)
    assert [before for before, _ in steps[1:]] == [after for _, after in steps[:-1]]


def test_labelled_feedback_becomes_rows(project: Project) -> None:
    project.run("ingest")
    rows = (
        pd.read_parquet(project.settings().paths.raw / ingest.FILE).head(3).drop(columns="content")
    )
    rows.assign(id=lambda r: "feedback " + r["id"]).to_parquet(
        Path("data/feedback/one.parquet"), index=False
    )
    project.run("ingest")
    manifest = provenance.read_json(project.settings().paths.raw / "manifest.json")
    counts = {step["step"]: step["rows"] for step in manifest["steps"]}
    assert counts["feedback added"] == counts["source"] + 3


def test_the_content_hash_is_of_values_not_of_types_order_or_names_of_keys(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"a": [1.0, 0.1, np.nan, -0.0], "b": ["x", "é", None, ""], "c": [b"1", b"2", b"1", None]}
    )
    hashes = ingest.content_hash(rows)
    rows.to_parquet(tmp_path / "rows.parquet", row_group_size=2)
    others = [
        pd.read_parquet(tmp_path / "rows.parquet"),
        rows[["c", "b", "a"]].assign(id=range(4), label="y"),
        pd.DataFrame(
            {"b": ["x", "é", None, ""], "a": [1, 0.1, None, 0], "c": [b"1", b"2", b"1", None]}
        ),
    ]
    for other in others:
        assert ingest.content_hash(other).tolist() == hashes.tolist()
    assert hashes.nunique() == 4 and hashes.str.fullmatch("[0-9a-f]{64}").all()


def test_the_content_hash_tells_values_apart() -> None:
    values = ["", "0", "0.0", "nan", b"x", "y", None]
    rows = pd.DataFrame([{"a": a, "b": b} for a in values for b in values], dtype=object)
    assert ingest.content_hash(rows).is_unique
    alone = pd.concat(
        [ingest.content_hash(rows.iloc[[i]]) for i in range(len(rows))]
    )  # rows do not depend on others
    assert alone.tolist() == ingest.content_hash(rows).tolist()
    assert len(ingest.content_hash(rows.head(0))) == 0


def test_a_local_source_that_changed_is_noticed_and_one_that_is_gone_is_not(
    project: Project,
) -> None:
    has_changed = module("data.changes").has_changed
    project.run("ingest")
    assert not has_changed(project.settings())  # bundled: there is no file
    path = from_file(project)
    project.run("ingest")
    assert not has_changed(project.settings())
    drop_a_row(path)
    assert has_changed(project.settings())
    path.unlink()
    assert not has_changed(project.settings())


def test_types_are_asked_of_the_library(project: Project) -> None:
    """Also those of an owner's own schema, in whatever way a column's type is written."""
    pa = module("data.validate").pa
    data, texts = project.settings().data, pd.Series(["1", "2", None])
    kinds: list[Any] = [float, "Int64", int]
    for kind, values in zip(kinds, (texts, texts, texts[:2]), strict=True):
        converted = ingest.converted(values, pa.Column(kind), data)
        assert converted.dropna().tolist() == [1, 2] and pd.api.types.is_numeric_dtype(converted)
    assert ingest.converted(texts, pa.Column(int), data) is texts  # it cannot be missing
    half = pd.Series(["1.5"])
    assert ingest.converted(half, pa.Column(int), data) is half
    schema = module("data.schema")
    kinds = [str, "string", pd.StringDtype()]
    for kind in kinds:
        assert schema.holds_text(pa.Column(kind)) and not schema.holds_numbers(pa.Column(kind))
    kinds = [bool, object, None, "datetime64[ns]"]
    for kind in kinds:
        assert not schema.holds_text(pa.Column(kind)) and not schema.holds_numbers(pa.Column(kind))


def test_a_word_for_missing_values_may_be_a_key(project: Project) -> None:
    data = project.settings().data.model_copy(update={"missing": ["NA", "NB"]})
    rows = pd.DataFrame(
        {"id": ["NA", "x"], "label": [data.labels[0] if data.labels else "1", "NB"]}
    )
    typed = ingest.typed(rows, data)
    assert typed["id"].tolist() == ["NA", "x"] and typed["label"].isna().tolist() == [False, True]

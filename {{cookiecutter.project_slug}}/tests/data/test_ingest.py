import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from harness import NONE, ROOT, Project, dvc, module

ingest = module("data.ingest")
provenance = module("provenance")


def from_file(project: Project) -> Path:
    """Makes the project read this file, which holds the rows of the bundled source; its settings
    know already.
    """
    project.run("ingest")
    path = project.folder / "data" / "source.parquet"
    ingest.read(project.settings()).drop(columns="content").to_parquet(path, index=False)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    target = f"{ingest.__name__.removesuffix('ingest')}sources.table"
    params["data"]["source"] = {
        "_target_": target,
        "path": "data/source.parquet",
        "label": "label",
        "id": "id",
    }
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return path


def drop_a_row(path: Path) -> None:
    pd.read_parquet(path).iloc[1:].to_parquet(path, index=False)


def version(project: Project) -> str:
    ingest.read(project.settings())  # whole, or an error
    return str(provenance.data_version(project.settings()))


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


@contextlib.contextmanager
def disk_quota() -> Iterator[None]:
    """The operating system itself refuses to write a file beyond 2,000 bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.row("D2")
@pytest.mark.parametrize(
    "failure", ["source gone", "source damaged", "disk full", "disk full later", "disk refuses"]
)
def test_a_failure_leaves_the_last_snapshot_and_says_so(
    failure: str, project: Project, monkeypatch: pytest.MonkeyPatch
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
    elif failure == "disk full later":
        monkeypatch.setattr(ingest, "write_json", no_space)
    quota = disk_quota() if failure == "disk refuses" else contextlib.nullcontext()
    with quota, pytest.raises(ValueError, match="data/raw keeps the last good snapshot"):
        project.run("ingest")
    monkeypatch.undo()
    assert version(project) == before
    assert {p.name for p in Path("data").iterdir()} <= {"feedback", "raw", path.name}


def test_a_bug_in_a_source_keeps_its_traceback(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("task.source"), "bundled", lambda **_: [][0])
    with pytest.raises(IndexError) as caught:
        project.run("ingest")
    assert "no snapshot in data/raw yet" in caught.value.__notes__[0]


def steps_of_a_swap(monkeypatch: pytest.MonkeyPatch, killed_at: int) -> list[str]:
    """Ends the process, as it were, at a step that touches the disk, before or after it is done;
    lists the steps.
    """
    done: list[str] = []

    def patch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            done.append(f"before {name}")
            if len(done) == killed_at:
                raise KeyboardInterrupt
            result = real(*arguments, **options)
            done.append(f"after {name}")
            if len(done) == killed_at:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(owner, name, step)

    patch(pd.DataFrame, "to_parquet")
    patch(ingest.os, "fsync")
    patch(Path, "replace")
    return done


@pytest.mark.row("D2")
def test_killed_at_any_step_the_snapshot_is_the_old_or_the_new_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = from_file(project)
    seen, number, finished = set(), 0, False
    project.run("ingest")
    while not finished:
        number += 1
        old = len(ingest.read(project.settings()))
        drop_a_row(path)
        with monkeypatch.context() as patched:
            steps_of_a_swap(patched, number)
            with contextlib.suppress(KeyboardInterrupt):
                finished = ingest.run(project.settings(), NONE) == 0
        rows = len(ingest.read(project.settings()))
        assert rows in (old, len(pd.read_parquet(path)))
        seen.add("old" if rows == old else "new")
        project.run("ingest")  # a run after a kill is like any other
        assert len(ingest.read(project.settings())) == len(pd.read_parquet(path))
    assert seen == {"old", "new"} and number > 12


@pytest.mark.row("D2", "D3")
@pytest.mark.slow
def test_through_dvc_new_data_flow_on_equal_data_do_not_and_a_failure_changes_nothing(
    project: Project,
) -> None:
    path = from_file(project)
    (project.folder / "src").symlink_to(ROOT / "src")
    assert dvc("init", "--quiet", "--no-scm").returncode == 0
    first = dvc("repro", "validate")
    assert first.returncode == 0, first.stderr
    before = version(project)
    again = dvc("repro", "--force", "--single-item", "ingest")
    assert again.returncode == 0 and "nothing new" in again.stderr and version(project) == before
    assert "Running stage" not in dvc("repro", "validate").stdout
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    failed = dvc("repro", "--force", "ingest")
    assert failed.returncode and "data/raw keeps the last good snapshot" in failed.stderr
    assert version(project) == before
    path.write_bytes(content)
    drop_a_row(path)
    assert (
        dvc("repro", "--force", "--single-item", "ingest").returncode == 0
        and version(project) != before
    )
    assert "Running stage 'validate'" in dvc("repro", "validate").stdout


@pytest.mark.row("D2")
def test_rows_and_bytes_are_logged_before_and_after_each_step(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.run("ingest")
    fields = [vars(record)["fields"] for record in caplog.records if "fields" in vars(record)]
    steps = [(f["before"], f["after"]) for f in fields if "after" in f]
    assert len(steps) == 4 and all(after["rows"] > 0 and after["bytes"] > 0 for _, after in steps)
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
        rows.astype(object),
        pd.DataFrame(
            {"b": ["x", "é", None, ""], "a": [1, 0.1, None, 0], "c": [b"1", b"2", b"1", None]}
        ),
    ]
    for other in others:
        assert ingest.content_hash(other).tolist() == hashes.tolist()
    assert hashes.nunique() == 4 and hashes.str.fullmatch("[0-9a-f]{64}").all()


def test_the_content_hash_tells_values_apart() -> None:
    values = [0.0, 1.0, np.nan, 1e-300, "", "0", "0.0", "nan", b"x", "y"]
    rows = pd.DataFrame([{"a": a, "b": b} for a in values for b in values], dtype=object)
    assert ingest.content_hash(rows).is_unique
    alone = pd.concat(
        [ingest.content_hash(rows.iloc[[i]]) for i in range(len(rows))]
    )  # rows do not depend on others
    assert alone.tolist() == ingest.content_hash(rows).tolist()
    assert len(ingest.content_hash(rows.head(0))) == 0


def test_many_rows_are_hashed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.DataFrame({"a": np.arange(10.0), "b": list("abcdefghij")})
    whole = ingest.content_hash(rows)
    monkeypatch.setattr(ingest, "ROW_GROUP", 3)
    assert ingest.content_hash(rows).tolist() == whole.tolist()

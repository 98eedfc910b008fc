import numpy as np
import pandas as pd
import pytest
from harness import Project, module

split = module("data.split")


@pytest.fixture
def keys() -> pd.Series:
    return pd.Series([f"row {i}" for i in range(5000)])


@pytest.mark.row("D7")
def test_a_row_keeps_its_split_when_rows_are_added_or_reordered(keys: pd.Series, project: Project) -> None:
    rule = project.settings().data.split
    before = split.assign(keys, rule, seed=1)
    more = pd.concat([pd.Series([f"new {i}" for i in range(999)]), keys.iloc[::-1]], ignore_index=True)
    after = split.assign(more, rule, seed=1)
    assert dict(zip(keys, before, strict=True)) == dict(zip(more[999:], after[999:], strict=True))


@pytest.mark.row("D7")
def test_shares_are_those_of_the_configuration(keys: pd.Series, project: Project) -> None:
    rule = project.settings().data.split
    shares = split.assign(keys, rule, seed=1).value_counts(normalize=True)
    assert all(abs(shares[name] - share) < 0.03 for name, share in rule.fractions.items())
    assert (split.assign(keys, rule, seed=1) != split.assign(keys, rule, seed=2)).mean() > 0.3


def test_fractions_must_add_up(keys: pd.Series, project: Project) -> None:
    rule = project.settings().data.split.model_copy(
        update={"fractions": {"train": 0.9, "val": 0.2, "calibration": 0, "test": 0}}
    )
    with pytest.raises(ValueError, match="add up to 1"):
        split.assign(keys, rule, seed=1)


def test_equal_rows_in_two_splits_stop_the_pipeline(project: Project) -> None:
    assert project.run("ingest") == 0
    ingest = module("data.ingest")
    path = project.settings().paths.raw / ingest.FILE
    rows = pd.read_parquet(path)
    rows = pd.concat([rows, rows.head(100).assign(id=lambda r: r["id"] + " again")], ignore_index=True)
    rows.to_parquet(path, index=False)
    manifest = module("provenance").read_json(path.with_name("manifest.json"))
    manifest["files"][ingest.FILE]["sha256"] = module("provenance").sha256(path)
    module("provenance").write_json(path.with_name("manifest.json"), manifest)
    with pytest.raises(ValueError, match=r"data\.split\.key=content"):
        project.run("split", "data.split.key=id")
    assert project.run("split") == 0  # by content, equal rows stay together


def test_class_deviation_sees_a_lopsided_split() -> None:
    rows = pd.DataFrame({"label": ["a", "b"] * 50})
    names = pd.Series(np.where(rows["label"] == "a", "train", "test"))
    assert split.class_deviation(rows, names)["train"] == pytest.approx(0.5)

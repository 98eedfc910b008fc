import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from harness import ROOT, Project, module

sources = module("data.sources")
CHOICES = [p.stem for p in (ROOT / "configs" / "source").glob("*.yaml") if p.stem != "bundled"]
CSV = 'key,city,age,zip,left\n7,Bonn,41.5,007,1\n8,"a, ""b""",,010,0\n9,,30,,\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(CSV, encoding="utf-8")
    return tmp_path


def values(rows: pd.DataFrame) -> list[list[Any]]:
    return [
        [None if value != value else value for value in row]
        for row in rows.astype(object).to_numpy().tolist()
    ]


@pytest.mark.row("D2")
def test_a_csv_becomes_key_features_and_label(folder: Path) -> None:
    rows = sources.table("mine.csv", label="left", id="key")
    assert list(rows.columns) == ["id", "city", "age", "zip", "label"]
    assert values(rows) == [
        ["7", "Bonn", "41.5", "007", "1"],
        ["8", 'a, "b"', None, "010", "0"],
        ["9", None, "30", None, None],
    ]
    chosen = sources.table("mine.csv", label="left", columns=["zip", "age"])
    assert list(chosen.columns) == ["id", "zip", "age", "label"] and chosen["id"].tolist() == [
        0,
        1,
        2,
    ]


def test_other_forms_of_a_file_give_the_same_rows(folder: Path) -> None:
    wanted = values(sources.table("mine.csv", label="left", id="key"))
    (folder / "mine.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    pd.read_csv("mine.csv", dtype=str).to_parquet("mine.parquet")
    (folder / "semicolon.csv").write_text("key;city;left\n7;Bonn;1\n", encoding="utf-8")
    assert values(sources.table("mine.csv.gz", label="left", id="key")) == wanted
    assert values(sources.table("mine.parquet", label="left", id="key")) == wanted
    assert values(sources.table("semicolon.csv", label="left", id="key", separator=";")) == [
        ["7", "Bonn", "1"]
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "none.csv"}, "none.csv is no file"),
        ({"path": "mine.txt"}, "must end in .csv"),
        ({"label": "right"}, r"lacks the columns \['right'\]: it has \['key', 'city'"),
        ({"id": "nr"}, r"lacks the columns \['nr'\]"),
        ({"columns": ["age", "height"]}, r"lacks the columns \['height'\]"),
        ({"sha256": "0" * 64}, "has SHA-256 [0-9a-f]{64}, not data.source.sha256 0000"),
        ({"path": "nowhere://mine.csv"}, "cannot be read: Protocol not known"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    change: dict[str, Any], words: str, folder: Path
) -> None:
    (folder / "mine.txt").write_text(CSV, encoding="utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        sources.table(**{"path": "mine.csv", "label": "left", **change})
    assert "\n" not in str(caught.value)


def test_a_column_with_a_reserved_name_is_refused(folder: Path) -> None:
    (folder / "mine.csv").write_text("id,content,label\n1,2,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"features called \['content', 'id'\]"):
        sources.table("mine.csv", label="label")
    assert list(sources.table("mine.csv", label="label", id="id", columns=[]).columns) == [
        "id",
        "label",
    ]


def test_whole_numbers_are_written_without_a_point() -> None:
    assert sources.as_text(pd.Series([1.0, 2.0])).tolist() == ["1", "2"]
    assert values(sources.as_text(pd.Series([1, None, 3])).to_frame()) == [["1"], [None], ["3"]]
    assert sources.as_text(pd.Series([0.5, 2.0])).tolist() == ["0.5", "2.0"]
    assert sources.as_text(pd.Series([True, False])).tolist() == ["True", "False"]


def test_a_store_whose_library_is_missing_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(ValueError, match=r"s3://bucket/mine\.csv cannot be read: Install s3fs"):
        sources.table("s3://bucket/mine.csv", label="left")


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_says_what_it_needs(choice: str, project: Project) -> None:
    compose, parse = module("params").compose, module("settings").parse
    path = ROOT / "configs" / "source" / f"{choice}.yaml"
    source = yaml.safe_load(path.read_text(encoding="utf-8"))
    missing = [key for key, value in source.items() if value == "???"]
    with pytest.raises(ValueError, match=f"Missing mandatory value.*data.source.{missing[0]}"):
        compose([f"source={choice}"])
    given = [f"data.source.{key}=x" for key in missing]
    composed = parse(yaml.safe_load(compose([f"source={choice}", *given])))
    assert composed.data.source[missing[0]] == "x"

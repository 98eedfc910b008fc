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
        [None if pd.isna(value) else value for value in row]
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


LINES = CSV.splitlines()


@pytest.mark.row("D2")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\n".join([*LINES, "10,Bonn,3"]), "mine.csv, line 5: 3 fields where the header has 5"),
        ("\n".join([*LINES, "10,a,1,2,3,4"]), "mine.csv, line 5: 6 fields where the header has 5"),
        ('a,left\n"x\ny",1\n2\n', "mine.csv, line 4: 1 fields where the header has 2"),
        ('a,left\n1,2\n"3,4\n5,6\n', "mine.csv, line 3: 1 fields where the header has 2"),
        ("a,left,a\n1,2,3\n", "two columns called 'a'"),
        ("", "mine.csv cannot be read: Empty"),
        ("a;left\n1;2\n", "it has .'a;left'.; is data.source.separator right"),
    ],
)
def test_no_field_is_shifted_dropped_or_made_up(content: str, words: str, folder: Path) -> None:
    (folder / "mine.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        sources.table("mine.csv", label="left")
    assert "\n" not in str(caught.value)


def test_a_file_is_read_in_its_encoding_or_refused_with_the_setting(folder: Path) -> None:
    text = "straße,left\nKöln,1\n"
    (folder / "mine.csv").write_text(text, encoding="cp1252")
    assert values(sources.table("mine.csv", "left", encoding="cp1252")) == [[0, "Köln", "1"]]
    for encoding in ("utf-8", "nonsense"):
        with pytest.raises(ValueError, match=f"not written in {encoding} .*data.source.encoding"):
            sources.table("mine.csv", "left", encoding=encoding)
    (folder / "mine.csv").write_text(text, encoding="utf-8-sig")
    assert [*sources.table("mine.csv", "left").columns] == ["id", "straße", "label"]


def test_only_the_empty_field_is_missing(folder: Path) -> None:
    (folder / "mine.csv").write_text('a,left\nNA,None\n"",null\nnan,x\n', encoding="utf-8")
    rows = values(sources.table("mine.csv", "left"))
    assert [row[1:] for row in rows] == [["NA", "None"], [None, "null"], ["nan", "x"]]


def test_long_whole_numbers_stay_exact_beside_missing_ones(folder: Path) -> None:
    long = 9_007_199_254_740_993
    rows = pd.DataFrame({"key": [long, long + 1], "code": pd.array([long, None], "Int64")})
    rows.assign(left=[True, None]).to_parquet("mine.parquet")
    read = sources.table("mine.parquet", "left", id="key")
    texts = {name: sources.as_text(read[name]).tolist() for name in read}
    assert texts["id"] == [str(long), str(long + 1)] and texts["code"][0] == str(long)
    assert texts["label"][0] == "True" and pd.isna(texts["label"][1])


@pytest.mark.parametrize(
    ("text", "decimal", "thousands", "number"),
    [
        ("1.234,5", ",", ".", 1234.5),
        ("-7,25", ",", "", -7.25),
        ("1,234,567", ".", ",", 1234567),
        ("1.5", ",", ".", None),
        ("12.34,5", ",", ".", None),
        ("nan", ".", "", None),
        ("NA", ".", "", None),
        (" 3e2 ", ".", "", 300),
    ],
)
def test_numbers_are_read_with_their_signs(
    text: str, decimal: str, thousands: str, number: float | None
) -> None:
    (value,) = module("data.schema").numbers(pd.Series([text]), decimal, thousands)
    assert value == number if number is not None else pd.isna(value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "none.csv"}, "none.csv is no file"),
        ({"path": "mine.txt"}, "must end in .csv"),
        ({"path": "mine.xlsx"}, "must end in .csv.* save it as CSV"),
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
    for name in ("mine.txt", "mine.xlsx"):
        (folder / name).write_text(CSV, encoding="utf-8")
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
    compose, parse = module("pipeline").compose, module("settings").parse
    composed = yaml.safe_load(compose([f"source={choice}"]))
    missing = [key for key, value in composed["data"]["source"].items() if value == "???"]
    assert missing
    with pytest.raises(ValueError, match=f"data.source: .*needs {missing[0]}"):
        parse(composed)
    given = [f"data.source.{key}=x" for key in missing]
    assert (
        parse(yaml.safe_load(compose([f"source={choice}", *given]))).data.source[missing[0]] == "x"
    )

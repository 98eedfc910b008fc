"""What `describe` drafts of tables as people have them."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import PACKAGE, module
from omegaconf import OmegaConf

draft, look = module("data.draft"), module("data.look")


def described(path: object, **options: str) -> tuple[dict[str, Any], str]:
    """The drafted configuration, as it is composed, and what was unsure."""
    args = {"path": str(path), "label": None, "time": None, "query": None, **options}
    data = look.look(Namespace(**args))
    drafted = OmegaConf.create(draft.data_yaml("mine", data))
    content: Any = OmegaConf.to_container(drafted, resolve=True)
    module("task.features").Features.model_validate(content["features"])
    return content, "\n".join(data.unsure)


def table(rows: int = 60, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    base = {"a": rng.normal(size=rows).round(2), "c": rng.choice(list("xyz"), rows)}
    return pd.DataFrame({**base, **columns, "y": columns.get("y", ["yes", "no"] * (rows // 2))})


def written(folder: Path, rows: pd.DataFrame) -> Path:
    rows.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def test_names_and_values_stay_whatever_yaml_takes_them_for(tmp_path: Path) -> None:
    names = ['say "hi"', "two\nlines", "${oc.env:HOME}", "it's: #1", "no", "null", "1e3"]
    values = ["${x}", "a: b", "# no", '"q"', "\\", "yes", "~", "1e3", "[", "null"] * 6
    rows = table(v=values).assign(**{name: np.arange(60) % 7 + 0.5 for name in names})
    content, _ = described(written(tmp_path, rows.replace({"y": {"yes": "${y}"}})))
    assert {*names} <= {*content["features"]["numeric"]}
    assert content["features"]["categorical"]["v"] == sorted({*values})
    assert {*content["labels"]} == {"no", "${y}"}
    assert {*names} <= {*content["features"]["examples"][0]}


@pytest.mark.parametrize(
    ("label", "kind", "labels"),
    [
        ([0, 1] * 30, "binary", ["0", "1"]),
        ([0.0, 1.0] * 30, "binary", ["0.0", "1.0"]),
        ([True, False] * 30, "binary", ["False", "True"]),
        (["yes", "no", None] * 20, "binary", ["no", "yes"]),
        ([0, 1, 2, None] * 15, "multiclass", ["0.0", "1.0", "2.0"]),
        (["01", "02", "10"] * 20, "multiclass", ["01", "02", "10"]),
        ([*range(1000, 1060)], "regression", []),
    ],
)
def test_classes_are_called_as_in_the_file(
    label: list[Any], kind: str, labels: list[str], tmp_path: Path
) -> None:
    content, _ = described(written(tmp_path, table(y=label)))
    assert (content["kind"], content["labels"]) == (kind, labels)


def test_a_column_that_splits_by_time_is_no_feature(tmp_path: Path) -> None:
    days = pd.Series(pd.date_range("2024-01-20", periods=60)).dt.strftime("%d/%m/%Y")
    content, _ = described(written(tmp_path, table(day=days)), time="day")
    assert content["split"]["time"] == {"column": "day", "format": "%d/%m/%Y"}
    assert "dates" not in content["features"] and "day" not in content["features"]["examples"][0]
    assert "day" in content["source"].get("columns", ["day"])


def test_numbers_are_believed_a_little_beyond_what_is_there(tmp_path: Path) -> None:
    a = np.where(np.arange(60) == 3, np.inf, np.arange(60) / 10)
    content, _ = described(written(tmp_path, table(a=a, flag=[0, 1, 1] * 20, rooms=[1, 6] * 30)))
    limits = content["features"]["numeric"]
    assert limits["flag"] == [0, 1] and limits["rooms"] == [0, 7]
    assert limits["a"][0] == 0 and 5.9 < limits["a"][1] < 7


def test_what_cannot_be_a_feature_is_left_out_and_told(tmp_path: Path) -> None:
    rows = table(content=["u", "v"] * 30, long=["x" * 300, "y"] * 30, o=[[1, 2]] * 60, k=[1] * 60)
    rows.to_parquet(tmp_path / "t.parquet", index=False)
    content, unsure = described(tmp_path / "t.parquet")
    assert content["source"]["columns"] == ["a", "c"]
    assert all(f"{name!r} is left out" in unsure for name in ("content", "long", "o", "k"))


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (table(2)[:1], {}, "has 1 rows"),
        (table(2)[:0], {}, "has 0 rows"),
        (table()[["a"]], {}, "no column that could be a feature"),
        (table(y=[None] * 60), {}, "one value or none"),
        (table(), {"time": "b"}, "--time 'b' is no column: did you mean"),
        (table(), {"time": "c"}, "no number and no date"),
        (table(), {"label": "yy"}, "--label 'yy' is no column: did you mean y"),
    ],
)
def test_what_cannot_be_drafted_is_told(
    rows: pd.DataFrame, options: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        described(written(tmp_path, rows), **options)


def test_a_database_is_asked_for_rows(tmp_path: Path) -> None:
    pytest.importorskip(f"{PACKAGE}.data.sources.databases")
    from sqlalchemy import create_engine

    url = f"sqlite:///{tmp_path / 'x.db'}"
    table().to_sql("sales", create_engine(url), index=False)
    content, _ = described(url, query="SELECT * FROM sales")
    assert (
        content["source"]["query"] == "SELECT * FROM sales"
        and "a" in content["features"]["numeric"]
    )
    with pytest.raises(ValueError, match="--query 'SELECT"):
        described(url)


def test_the_page_is_told_what_is_predicted(tmp_path: Path) -> None:
    rows = table(monthly_cost=np.arange(60) + 0.5)
    content, _ = described(written(tmp_path, rows), label="monthly_cost")
    assert content["predicts"] == "monthly_cost" and content["unit"] == ""
    content, _ = described(written(tmp_path, rows))
    assert content["predicts"] == "y" and "unit" not in content

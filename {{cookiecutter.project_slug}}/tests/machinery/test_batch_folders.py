"""Batch scoring of folders, and what it leaves where it fails."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import served

from {{cookiecutter.package_name}}.serving import batch
from {{cookiecutter.package_name}}.settings import Settings

kind, live, raw_settings, release = served.kind, served.live, served.raw_settings, served.release
rows, settings, table = served.rows, served.settings, served.table


def score(settings: Settings, *words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    batch.arguments(parser)
    return batch.run(settings, parser.parse_args([str(word) for word in words]))


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.row("S3")
def test_scores_a_folder_with_a_named_bundle(settings: Settings, live: str, rows: Any) -> None:
    Path("in").mkdir()
    rows.table[:10].to_parquet("in/a.parquet")
    rows.table[10:25].to_parquet("in/b.parquet")
    assert score(settings, "in", "out.parquet", "--bundle", settings.paths.live / "1") == 0
    assert pd.read_parquet("out.parquet")["id"].tolist() == rows.table["id"].tolist()[:25]


@pytest.mark.row("S3")
def test_a_failure_in_the_middle_keeps_the_old_output(
    settings: Settings, live: str, rows: Any
) -> None:
    features = [name for name in rows.table.columns if name not in ("id", "label")]
    Path("in").mkdir()
    rows.table[:10].to_parquet("in/a.parquet")
    rows.table.drop(columns=features).to_parquet("in/b.parquet")
    Path("out.parquet").write_text("older", encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.parquet, rows 0 to"):
        score(settings, "in", "out.parquet")
    assert Path("out.parquet").read_text(encoding="utf-8") == "older"
    assert sorted(path.name for path in Path().glob("*out*")) == ["out.parquet"]

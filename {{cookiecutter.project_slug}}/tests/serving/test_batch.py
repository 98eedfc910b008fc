"""Batch scoring: the bundle's own answers for files and folders, whole files or none."""

import argparse
import logging
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from {{cookiecutter.package_name}}.serving import batch
from {{cookiecutter.package_name}}.serving.predictor import load_live
from {{cookiecutter.package_name}}.settings import Settings
from {{cookiecutter.package_name}}.task.features import FILE_COLUMN


def score(settings: Settings, *words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    batch.arguments(parser)
    return batch.run(settings, parser.parse_args([str(word) for word in words]))


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.row("S3")
def test_scores_a_file_in_pieces(
    settings: Settings, live: str, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "ROWS", 33)
    rows.table.to_parquet("in.parquet", row_group_size=100)
    assert score(settings, "in.parquet", "out/scored.parquet") == 0
    scored = pd.read_parquet("out/scored.parquet")
    champion = load_live(settings.paths.live)
    answers = champion.predict(rows.inputs).answers
    assert scored["id"].tolist() == rows.table["id"].tolist()
    assert scored["abstain"].tolist() == answers.abstain.tolist()
    assert set(scored["model"]) == {live}
    added = [name for name in scored if name not in rows.table]
    columns = champion.bundle.kind.columns(answers, settings.data.labels)
    assert added == [*columns, "abstain", "model", "problem"] and scored["problem"].isna().all()
    for name, values in columns.items():
        if isinstance(values[0], str):
            assert scored[name].tolist() == values
        else:
            np.testing.assert_allclose(scored[name], values, rtol=1e-4, atol=1e-3)


@pytest.mark.row("S3")
def test_scores_files_as_people_have_them(settings: Settings, live: str, rows: Any) -> None:
    """A folder of what the model takes, or a CSV file: the answers are those of the Parquet file,
    and the last row, which is none, has a problem instead.
    """
    rows.table[:20].to_parquet("in.parquet")
    assert score(settings, "in.parquet", "right.parquet") == 0
    if FILE_COLUMN:
        place = Path("in")
        place.mkdir()
        for i, content in enumerate([*rows.table[FILE_COLUMN][:20], b"no picture"]):
            (place / f"{i:03d}.bin").write_bytes(content)
    else:
        place = Path("in.csv")
        wrong = rows.table[20:21].assign(**{rows.table.columns[1]: "?"})
        pd.concat([rows.table[:20], wrong]).to_csv(place, sep=";", index=False)
    assert score(settings, str(place), "out.csv") == 0
    right, scored = pd.read_parquet("right.parquet"), pd.read_csv("out.csv")
    sure = "confidence" if "confidence" in scored else "predicted_value"
    np.testing.assert_allclose(scored[sure][:20], right[sure], rtol=1e-4)
    assert (
        scored[sure].isna().tolist() == scored["problem"].notna().tolist() == [False] * 20 + [True]
    )
    log, records = logging.Logger("batch"), BufferingHandler(9)
    log.addHandler(records)
    champion = load_live(settings.paths.live)
    files, again = batch.files_in(place), Path("again.csv")
    assert batch.score(champion, files, again, settings.data, log) == 21
    said = [record.getMessage() for record in records.buffer]
    assert said[0] == "20 rows scored to again.csv" and said[1].startswith("1 rows have no answer")


@pytest.mark.row("S3")
def test_what_cannot_be_scored_is_named_and_leaves_nothing(
    settings: Settings, live: str, rows: Any
) -> None:
    features = [name for name in rows.table.columns if name not in ("id", "label")]
    rows.table.drop(columns=features).to_parquet("no-features.parquet")
    Path("text.parquet").write_text("no parquet", encoding="utf-8")
    rows.table.assign(**{features[0]: "?"}).to_parquet("wrong-cells.parquet")
    rows.table.assign(model="x").to_parquet("taken.parquet")
    rows.table[:0].to_parquet("no-rows.parquet")
    wrong = {
        "missing.parquet": "no such",
        "no-features.parquet": f"{features[0]}.*is missing",
        "text.parquet": "not a Parquet file",
        "wrong-cells.parquet": f"no row of .* can be scored: {features[0]}",
        "taken.parquet": "there already",
        "no-rows.parquet": "no rows",
    }
    for name, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            score(settings, name, "out.parquet")
        assert not Path("out.parquet").exists() and not list(Path().glob(".out*")), name

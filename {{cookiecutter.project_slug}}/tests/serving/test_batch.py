"""Batch scoring: the bundle's own answers for files and folders, whole files or none."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from {{cookiecutter.package_name}}.serving import batch
from {{cookiecutter.package_name}}.serving.predictor import load_live
from {{cookiecutter.package_name}}.settings import Settings


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
    assert added == [*columns, "abstain", "model"]
    for name, values in columns.items():
        if isinstance(values[0], str):
            assert scored[name].tolist() == values
        else:
            np.testing.assert_allclose(scored[name], values, rtol=1e-4, atol=1e-3)


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
        "wrong-cells.parquet": "rows 0 to",
        "taken.parquet": "there already",
        "no-rows.parquet": "no rows",
    }
    for name, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            score(settings, name, "out.parquet")
        assert not Path("out.parquet").exists() and not list(Path().glob(".out*")), name

"""Batch scoring: the bundle's own answers for files and folders, whole files or none."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kinds import every_kind

from {{cookiecutter.package_name}}.serving import batch
from {{cookiecutter.package_name}}.serving.predictor import load_live
from {{cookiecutter.package_name}}.settings import Settings
from {{cookiecutter.package_name}}.types import Decisions


def score(settings: Settings, *words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    batch.arguments(parser)
    return batch.run(settings, parser.parse_args([str(word) for word in words]))


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@every_kind
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
    if isinstance(answers, Decisions):
        assert added == ["predicted_label", "confidence", "abstain", "model"]
        assert scored["predicted_label"].tolist() == [
            settings.data.labels[i] for i in answers.label
        ]
        np.testing.assert_allclose(scored["confidence"], answers.confidence, atol=1e-5)
    else:
        assert added == ["predicted_value", "interval_low", "interval_high", "abstain", "model"]
        np.testing.assert_allclose(scored["predicted_value"], answers.value, rtol=1e-4)
        np.testing.assert_allclose(
            scored[["interval_low", "interval_high"]], answers.intervals, rtol=1e-4, atol=1e-3
        )


@pytest.mark.row("S3")
def test_scores_a_folder_with_a_named_bundle(settings: Settings, live: str, rows: Any) -> None:
    Path("in").mkdir()
    rows.table[:10].to_parquet("in/a.parquet")
    rows.table[10:25].to_parquet("in/b.parquet")
    assert score(settings, "in", "out.parquet", "--bundle", settings.paths.live / "1") == 0
    assert pd.read_parquet("out.parquet")["id"].tolist() == rows.table["id"].tolist()[:25]


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


@pytest.mark.row("S3")
def test_a_failure_in_the_middle_keeps_the_old_output(
    settings: Settings, live: str, rows: Any
) -> None:
    features = [name for name in rows.table.columns if name not in ("id", "label")]
    Path("in").mkdir()
    rows.table[:10].to_parquet("in/a.parquet")
    rows.table.assign(**{features[0]: "?"}).to_parquet("in/b.parquet")
    Path("out.parquet").write_text("older", encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.parquet, rows 0 to"):
        score(settings, "in", "out.parquet")
    assert Path("out.parquet").read_text(encoding="utf-8") == "older"
    assert sorted(path.name for path in Path().glob("*out*")) == ["out.parquet"]

"""Retraining in a real git repository with real DVC: what it makes, and what it leaves behind.

The pipeline is a stand-in that counts files of feedback, and the gate answers as the test says.
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from watched import Feed, feed_bad_labels, git, last_line, run, untouched

from {{cookiecutter.package_name}}.monitoring import retrain
from {{cookiecutter.package_name}}.settings import Settings

pytestmark = [pytest.mark.row("D4", "O7"), pytest.mark.usefixtures("alarm")]


@pytest.mark.slow
def test_an_alarm_with_labels_makes_a_data_version_and_a_branch(
    stand_in: Settings,
    repository: Path,
    feed: Feed,
    table: pd.DataFrame,
    capsys: pytest.CaptureFixture[str],
) -> None:
    feed(5, 40)  # five of them are in the snapshot already
    feed(38, 42, prefix="again")
    assert run(stand_in) == 0
    assert untouched(branches=1)
    branch = last_line()["branch"]
    assert f"git merge {branch}" in capsys.readouterr().out
    assert (repository / "live/pulled").exists()
    assert (repository / "audit/log.txt").read_text().split(" ", 1) == [
        "1",
        f"{repository}/tracker.db\n",
    ]

    git("merge", "--quiet", branch)
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "--quiet"], check=True)
    [file] = (repository / "data/feedback").glob("*.parquet")
    rows = pd.read_parquet(file)
    assert rows["id"].tolist() == [f"p{i}" for i in range(10, 40)] + ["again40", "again41"]
    assert rows.columns.tolist() == table.columns.tolist()
    assert rows["label"].tolist() == table["label"][10:42].tolist()

    # The next time only new rows count, and the old ones stay.
    assert run(stand_in) == 4
    assert "0 new labelled" in last_line()["outcome"]
    feed(42, 70)
    (repository / "audit/log.txt").unlink()
    assert run(stand_in) == 0
    assert (repository / "audit/log.txt").read_text().startswith("2 ")
    assert untouched(branches=2)


def test_new_rows_are_those_that_may_be_learned_from(
    settings: Settings, feed: Feed, table: pd.DataFrame
) -> None:
    feed_bad_labels(feed, table)
    feed(60, 70, instance={"no such": 1})
    rows = retrain.new_rows(settings, settings.paths.feedback)
    assert rows["id"].tolist() == [f"p{i}" for i in range(10, 29)]
    assert (
        rows["label"].tolist() == table["label"][10:29].tolist()
        and rows["label"].dtype == table["label"].dtype
    )
    assert rows.columns.tolist() == table.columns.tolist()

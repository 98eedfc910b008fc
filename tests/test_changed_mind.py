"""One project whose owner changes data: the demo, then values of one's own, then classes. Each answer in the store
is judged as what it was, and the registered model is loaded where the project is not installed.
"""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from conftest import ROOT, Baker, Project
from tasks import TASKS
from test_story import read, replay
from test_your_data import free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.deep]
REASON = "the champion is one of other data"
# Loads the champion by MLflow alone: the file's folder must not be this project's.
ELSEWHERE = """
import sys
import mlflow, pandas
uri, rows, answers = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model("models:/my-model@champion")
assert "artifacts/code" in sys.modules["my_model"].__file__
assert not {"torch", "lightning", "hydra", "pandera"} & {*sys.modules}
model.predict(pandas.read_parquet(rows)).to_parquet(answers)
"""


def trained_and_asked(project: Project, *words: str) -> str:
    """The name under which a model of these words answered the rows of its test split, with feedback."""
    project.run("make", "pipeline", *words, check=False)
    if read(project, "reports/promotion.json")["decision"] != "promote":
        project.python("-m", "my_model", "promote", "--override", REASON)
        project.python("-m", "my_model", "pull")
    port = free_port()
    address = f"127.0.0.1:{port}"
    with serving(project, f"make serve OVERRIDES=serving.port={port}", address):
        replay(project, f"http://{address}", "--feedback")
    assert read(project, "reports/replay.json")["different"] == 0
    return str(read(project, "live/current.json")["champion"]["version"])


def answers_elsewhere(project: Project, folder: Path) -> None:
    """The registered model gives raw rows the answers that the server stored."""
    script, answers = folder / "elsewhere.py", folder / "answers.parquet"
    script.write_text(ELSEWHERE, encoding="utf-8")
    uri, rows = f"sqlite:///{project.path}/mlflow.db", project.path / "data/splits/test.parquet"
    project.python("-I", script, uri, rows, answers)
    scored = folder / "scored.parquet"
    project.python("-m", "my_model", "batch", rows, scored)
    compare = (
        "import pandas, sys; a, b = map(pandas.read_parquet, sys.argv[1:]);"
        "same = a['label'] == b['predicted_label'] if 'label' in a else abs(a['value'] - b['predicted_value']) < 1e-3;"
        "assert len(a) == len(b) and same.all() and (a['abstain'] == b['abstain']).all()"
    )
    project.python("-c", compare, answers, scored)


def test_a_store_of_several_kinds_is_judged_version_by_version(shared: Project, fresh: Baker, tmp_path: Path) -> None:
    project = fresh(task=TASKS[1].name)
    project.env["VENV"] = shared.env["VENV"]
    project.python(ROOT / "tests" / "cases.py", tmp_path / "cases", "first_hours")
    for name in ("trees.csv", "flats.parquet"):
        shutil.move(tmp_path / "cases" / name, project.path / "data" / name)
    versions = [trained_and_asked(project, "OVERRIDES=trainer.max_epochs=3")]
    project.run("make", "describe", "DATA=data/flats.parquet", "TIME=sold")
    versions.append(trained_and_asked(project, "EXPERIMENT=flats", "OVERRIDES=trainer.max_epochs=3"))
    answers_elsewhere(project, tmp_path)
    project.run("make", "describe", "DATA=data/trees.csv")
    versions.append(trained_and_asked(project, "EXPERIMENT=trees"))
    answers_elsewhere(project, tmp_path)

    project.run("make", "monitor", check=False)
    report = read(project, "reports/monitor.json")
    assert [*report["versions"]] == versions
    demo, flats, trees = report["versions"].values()
    assert (flats["task"], trees["task"]) == ("flats", "trees") and demo["task"] not in ("flats", "trees")
    assert demo["mean_absolute_error"] > 0 and flats["mean_absolute_error"] > 0
    assert trees["mean_absolute_error"] is None and 0 <= trees["error_rate"] < 0.5
    assert {*trees["label_shares"]} == {*read(project, "artifacts/bundle/bundle.json")["labels"]}
    assert report["window"]["rows"] == min(300, trees["rows"])

    done = project.python("-m", "my_model", "routine", "--force", check=False)
    assert done.returncode in (0, 3, 4), done.stderr
    lines = (project.path / "logs" / "routine.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["error"] is None
    with sqlite3.connect(project.path / "store" / "predictions.db") as store:
        assert store.execute("SELECT count(*) FROM models").fetchone() == (3,)

"""A run is had again after everything has changed, and `gc` leaves what a project lives on: with the real commands."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.deep]


def copied(project: Project, folder: Path) -> Project:
    """The trained project in another folder, its tracker's records included."""
    shutil.copytree(project.path, folder, symlinks=True, ignore=shutil.ignore_patterns(".venv", "checkpoints"))
    with closing(sqlite3.connect(folder / "mlflow.db")) as store, store:
        places = {"runs": "artifact_uri", "experiments": "artifact_location", "logged_models": "artifact_location"}
        for table, column in places.items():
            new = (project.path.as_uri(), folder.as_uri())
            store.execute(f"update {table} set {column} = replace({column}, ?, ?)", new)
    return Project(folder, project.env | {"PYTHONPATH": str(folder / "src")}, project.task)


def verb(project: Project, *words: str, codes: tuple[int, ...] = (0,)) -> str:
    done = project.python("-m", "my_model", *words, check=False)
    assert done.returncode in codes, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def commit(project: Project) -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "more")


def newest(project: Project) -> str:
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store:
        network = "select run_uuid from tags where key = 'candidate' and value = 'network'"
        query = f"select run_uuid from runs where run_uuid in ({network}) order by start_time desc limit 1"
        return str(store.execute(query).fetchone()[0])


def test_runs_are_had_again_and_garbage_is_collected(trained: Project, tmp_path: Path) -> None:
    project = copied(trained, tmp_path / "copy")
    first = json.loads((project.path / "reports/run.json").read_text(encoding="utf-8"))["run_id"]
    commit(project)

    # Another seed gives other splits, another model and another lock file; the code changes as well.
    verb(project, "pipeline", "seed=8", codes=(0, 3, 4))
    second = newest(project)
    assert second != first
    commit(project)

    # An exploring run on code that is in no commit, and then nowhere at all.
    package = project.path / "src" / "my_model"
    (package / "modeling" / "never_committed.py").write_text("EPOCHS = 3\n", encoding="utf-8")
    losses = package / "modeling" / "losses.py"
    code = losses.read_text(encoding="utf-8")
    losses.write_text(code + "\nfrom .never_committed import EPOCHS as EPOCHS\n", encoding="utf-8")
    verb(project, "train", "trainer.max_epochs=3")
    exploring = newest(project)
    losses.write_text(code.replace("import", "import math  # noqa\nimport", 1), encoding="utf-8")
    (package / "modeling" / "never_committed.py").unlink()
    commit(project)

    state = {p: (project.path / p).read_bytes() for p in ("params.yaml", "dvc.lock", "live/current.json")}
    for run in (first[:12], exploring):
        assert "metrics are equal, bit for bit" in verb(project, "reproduce", run)
    assert state == {p: (project.path / p).read_bytes() for p in state}
    assert newest(project) == exploring  # it was recorded elsewhere
    assert len(project.run("git", "worktree", "list").stdout.splitlines()) == 1
    params = project.path / "outputs"
    assert params.is_dir() and yaml.safe_load(state["params.yaml"])["trainer"]["max_epochs"] != 3

    # The last bit of one metric counts.
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        change = "update latest_metrics set value = value * (1 + 3e-16) where run_uuid = ? and key like 'val.%'"
        assert store.execute(change, (exploring,)).rowcount
    assert "metrics differ" in verb(project, "reproduce", exploring, codes=(1,))

    assert "0 runs" not in verb(project, "gc", "--keep-days", "0", "--keep-runs", "0")
    assert "no run begins" in verb(project, "reproduce", exploring, codes=(2,))
    verb(project, "compare", "champion", "best")
    shutil.rmtree(project.path / "live")
    verb(project, "pull")
    for split in (project.path / "data" / "splits").iterdir():
        split.unlink()
    project.python("-m", "dvc", "checkout", "--force")
    assert list((project.path / "data" / "splits").iterdir())
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store:
        known = {row[0] for row in store.execute("select run_uuid from runs")}
    audit = (project.path / "audit" / "promotions.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["run_id"] for line in audit} <= known
    promoted = [line for line in map(json.loads, audit) if line["action"] == "promote"]
    verb(project, "rollback", codes=(0,) if len(promoted) > 1 else (2,))
    assert "0 refused models, 0 runs" in verb(project, "gc", "--keep-days", "0", "--keep-runs", "0")

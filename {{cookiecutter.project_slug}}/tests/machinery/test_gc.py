"""gc on a real tracker, a real registry and a real DVC cache: what goes, and that nothing that is
needed goes.
"""

import json
import os
import shutil
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from harness import Project, dvc, module

bundle, pull, registry, rollback = (
    module(f"packaging.{n}") for n in ("bundle", "pull", "registry", "rollback")
)
compare, gc, tracking = (module(n) for n in ("experiments.compare", "experiments.gc", "tracking"))
DAY = 24 * 3600
OLD = time.time() - 100 * DAY


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *identity, *arguments], check=True)


def free(project: Project, days: float = 30, runs: int = 0, dry: bool = False) -> None:
    assert gc.run(project.settings(), Namespace(keep_days=days, keep_runs=runs, dry_run=dry)) == 0


def age(*paths: Path) -> None:
    for path in paths:
        for file in [*path.rglob("*"), path]:
            os.utime(file, (OLD, OLD))


class History:
    """Runs and models as training, `package` and `promote` leave them, without the hours that they
    take.
    """

    def __init__(self, project: Project) -> None:
        self.settings = project.settings()
        self.client = tracking.client(self.settings)
        self.experiment = self.client.get_experiment_by_name(
            self.settings.tracking.experiment
        ).experiment_id
        self.name = self.settings.tracking.registered_model

    def run(
        self, when: float = OLD, parent: str = "", size: int = 1000, ended: bool = True, **tags: str
    ) -> str:
        tags = {**tags, "mlflow.parentRunId": parent} if parent else tags
        run_id = str(self.client.create_run(self.experiment, int(when * 1000), tags).info.run_id)
        self.client.log_text(run_id, "x" * size, "model/weights.bin")
        self.client.log_text(run_id, "{}", "evaluation/evaluation.json")
        if ended:
            self.client.set_terminated(run_id, "FINISHED", int(when * 1000))
        return run_id

    def model(self, size: int = 1000) -> Any:
        """A registered version with a bundle that `pull` takes."""
        run_id, folder = self.run(), Path(f"made/{time.time_ns()}")
        folder.mkdir(parents=True)
        card: dict[str, Any] = {
            "name": folder.name,
            "kind": self.settings.data.kind,
            "task": "made up",
            "labels": [],
        }
        card |= {
            "inputs": {},
            "outputs": {},
            "features": {},
            "decision": {},
            "label_scale": 1.0,
            "owner": "",
        }
        card |= {"candidate": "network", "code": "c", "data": "d", "dependencies": {}}
        (folder / "bundle.json").write_text(json.dumps(card), encoding="utf-8")
        identity = bundle.seal(folder)
        self.client.log_artifacts(run_id, str(folder), f"bundles/{identity[:12]}")
        logged = self.client.create_logged_model(
            self.experiment, name="model", source_run_id=run_id
        )
        stored = Path(logged.artifact_location.removeprefix("file://"))
        stored.mkdir(parents=True)
        (stored / "model.onnx").write_text("x" * size, encoding="utf-8")
        if not self.client.search_registered_models(f"name = '{self.name}'"):
            self.client.create_registered_model(self.name)
        tags = {"identity": identity, "code": "c", "data": "d", "candidate": "network"}
        return self.client.create_model_version(
            self.name, logged.model_uri, run_id, tags=tags, model_id=logged.model_id
        )

    def decide(self, action: str, version: Any, previous: Any = None) -> None:
        registry.audit(self.settings, action, version, previous, ["a test"])
        if action == "promote":
            self.client.set_registered_model_alias(self.name, "champion", version.version)

    def exists(self, run_id: str) -> bool:
        return run_id in {r.info.run_id for r in self.client.search_runs([self.experiment])}


def on_disk(run_id: str) -> list[str]:
    return sorted(p.name for p in (Path("mlruns") / run_id).rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracker's file, which takes seconds to make."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.connect(f"sqlite:///{path}", "of no test")
    return path


@pytest.fixture
def history(project: Project, empty_store: Path) -> History:
    """A repository without a commit yet, and without runs."""
    shutil.copy(empty_store, "mlflow.db")
    Path("dvc.yaml").unlink()
    git("init", "--quiet")
    dvc("init", "--quiet", check=True)
    Path(".state").mkdir()
    return History(project)


@pytest.mark.row("P3")
def test_what_champion_rollback_and_audit_need_stays(history: History, project: Project) -> None:
    git("commit", "--quiet", "-m", "first")
    by_hand, first, second, refused, challenger = (history.model() for _ in range(5))
    history.decide("cannot tell", by_hand)  # and yet somebody made it champion
    history.decide("promote", first, by_hand)
    history.decide("promote", second, first)
    history.decide("refuse", refused, second)
    history.decide("cannot tell", challenger, second)
    history.client.set_registered_model_alias(history.name, "challenger", challenger.version)
    history.client.set_registered_model_alias(history.name, "best", first.version)
    settings = project.settings()
    assert pull.run(settings, Namespace()) == 0
    stale = settings.paths.live / "9-gone"
    stale.mkdir()
    age(stale)
    free(project, days=30)
    logged = Path("mlruns/models") / refused.source.removeprefix("models:/")
    assert any(logged.rglob("*.onnx")) and not stale.exists()  # the refusal itself is of today
    free(project, days=0)
    assert not any(logged.rglob("*.onnx"))
    versions = history.client.search_model_versions(f"name = '{history.name}'")
    kept = {v.version for v in (by_hand, first, second, challenger)}
    assert {v.version for v in versions} == kept
    for entry in registry.decisions(settings):  # the refused one too, with what it was judged by
        assert history.exists(entry["run_id"])
        assert "evaluation.json" in on_disk(entry["run_id"])
    assert "bundle.json" not in on_disk(refused.run_id)
    assert compare.find_run(settings, "champion").info.run_id == second.run_id
    # A promotion after all registers it anew.
    assert registry.find(settings, refused.tags["identity"]) is None
    assert rollback.run(settings, Namespace(reason="a test")) == 0
    current = json.loads((settings.paths.live / pull.CURRENT).read_text(encoding="utf-8"))
    assert current["champion"]["identity"] == first.tags["identity"]


def test_old_runs_go_with_their_children_and_what_is_named_or_young_stays(
    history: History, project: Project
) -> None:
    git("commit", "--quiet", "-m", "first")
    old, young, unfinished = history.run(), history.run(time.time()), history.run(ended=False)
    below, shared = history.run(parent=old), history.run()
    current = history.run(record="the key of a record")
    # A judgement of today keeps the training it speaks of.
    late = history.run(time.time(), parent=shared)
    reports = project.settings().paths.reports
    reports.mkdir()
    report = {"run_id": "elsewhere", "record": "the key of a record", "runs": {}}
    (reports / "run.json").write_text(json.dumps(report), encoding="utf-8")
    free(project, dry=True)
    free(project, runs=20)
    assert history.exists(old)
    free(project)
    assert not history.exists(old) and not history.exists(below)
    assert on_disk(old)  # `mlflow runs restore` brings it back, for 30 days
    free(project, days=0, runs=20)
    assert on_disk(old) == on_disk(below) == []
    for kept in (young, unfinished, shared, current, late):
        assert history.exists(kept) and on_disk(kept) == ["evaluation.json", "weights.bin"]


def test_leftovers_go_and_what_is_in_use_stays(history: History, project: Project) -> None:
    git("commit", "--quiet", "-m", "first")
    old = [Path(".state/compare-dead"), Path(".state/reproduce"), Path("outputs/2026-01-01/10-00")]
    new = [Path(".state/compare-alive"), Path("outputs/2026-01-01/11-00")]
    for folder in (*old, *new):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    age(*old)
    free(project, dry=True)
    assert all(folder.exists() for folder in old)
    free(project)
    assert not any(folder.exists() for folder in old) and all(folder.exists() for folder in new)
    with FileLock(".state/routine.lock"), pytest.raises(ValueError, match="routine runs"):
        free(project)


@pytest.mark.row("D3")
def test_data_of_commits_and_the_workspace_stays(history: History, project: Project) -> None:
    storage = project.folder / "remote"
    dvc("remote", "add", "-d", "storage", str(storage), check=True)
    file, cache = Path("data/some"), Path(".dvc/cache/files/md5")
    for text in ("old", "head", "gone", "workspace"):
        file.write_text(text, encoding="utf-8")
        dvc("add", str(file), check=True)
        if text in ("old", "head"):
            git("add", "--all")
            git("commit", "--quiet", "-m", text)
        dvc("push", check=True)
    free(project)
    texts = {p.read_text(encoding="utf-8") for p in cache.glob("*/*")}
    assert texts == {"old", "head", "workspace"}
    assert len(list(storage.rglob("files/md5/*/*"))) == 4
    # A cache that others share is left alone.
    shared = project.folder.parent / "shared"
    cache.parents[1].rename(shared)
    dvc("cache", "dir", str(shared), check=True)
    file.write_text("another", encoding="utf-8")
    dvc("add", str(file), check=True)
    free(project)
    assert len(list(shared.glob("files/md5/*/*"))) == 4

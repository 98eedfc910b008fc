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

bundle, gc, pull, records, registry, rollback, tracking = (
    module(n)
    for n in (
        "packaging.bundle",
        "experiments.gc",
        "packaging.pull",
        "experiments.records",
        "packaging.registry",
        "packaging.rollback",
        "experiments.tracking",
    )
)
DAY = 24 * 3600
OLD = time.time() - 100 * DAY


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
    shutil.copy(empty_store, "mlflow.db")
    return History(project)


def weights(history: History, version: Any) -> list[str]:
    """What is on disk of a model: its bundle, its weights, and the copy that MLflow loads."""
    logged = Path("mlruns/models") / version.source.removeprefix("models:/")
    files = [
        p for p in (Path("mlruns") / version.run_id).rglob("*") if p.parent.name != "evaluation"
    ]
    return sorted(p.name for p in [*files, *logged.rglob("*")] if p.is_file())


@pytest.mark.row("P3")
def test_what_champion_rollback_and_audit_need_stays(history: History, project: Project) -> None:
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
    assert weights(history, refused) and not stale.exists()  # the refusal itself is of today
    free(project, days=0)
    assert not weights(history, refused)
    for kept in (by_hand, first, second, challenger):
        assert weights(history, kept) == [
            "bundle.json",
            "manifest.json",
            "model.onnx",
            "weights.bin",
        ]
    assert {
        v.version for v in history.client.search_model_versions(f"name = '{history.name}'")
    } == {v.version for v in (by_hand, first, second, challenger)}
    for entry in registry.decisions(settings):  # the refused one too, with what it was judged by
        assert history.client.get_run(entry["run_id"]).info.lifecycle_stage == "active"
        assert on_disk(entry["run_id"])
    assert records.read(settings, "champion").id == second.run_id
    assert (
        registry.find(settings, refused.tags["identity"]) is None
    )  # a promotion after all registers it anew
    assert rollback.run(settings, Namespace(reason="a test")) == 0
    current = json.loads((settings.paths.live / pull.CURRENT).read_text(encoding="utf-8"))
    assert current["champion"]["identity"] == first.tags["identity"]
    assert current["challenger"]["identity"] == challenger.tags["identity"]


def test_old_runs_go_with_their_children_and_what_is_named_or_young_stays(
    history: History, project: Project
) -> None:
    settings = project.settings()
    old, young, unfinished = history.run(), history.run(time.time()), history.run(ended=False)
    below, shared = history.run(parent=old), history.run()
    current = history.run(record="the key of a record")
    late = history.run(
        time.time(), parent=shared
    )  # a judgement of today keeps the training it speaks of
    settings.paths.reports.mkdir()
    report = {"run_id": "elsewhere", "record": "the key of a record", "runs": {}}
    (settings.paths.reports / "run.json").write_text(json.dumps(report), encoding="utf-8")

    free(project, dry=True)
    assert history.exists(old) and on_disk(old)
    free(project, runs=20)
    assert history.exists(old)
    free(project)
    assert (
        not history.exists(old)
        and not history.exists(below)
        and on_disk(old) == on_disk(below) == []
    )
    for kept in (young, unfinished, shared, current, late):
        assert history.exists(kept) and on_disk(kept) == ["evaluation.json", "weights.bin"]


def test_many_runs_stay_below_a_bound(history: History, project: Project) -> None:
    size = 100_000
    for _ in range(12):
        parent = history.run(size=size)
        history.run(parent=parent, size=size)
        free(project, runs=3)
        assert (
            sum(p.stat().st_size for p in Path("mlruns").rglob("*") if p.is_file()) < 3 * 2.1 * size
        )


def test_leftovers_go_and_what_is_in_use_stays(
    history: History, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    old = [
        Path(".state/compare-dead/0"),
        Path(".state/reproduce-dead"),
        Path("outputs/2026-01-01/10-00-00/model"),
    ]
    new = [Path(".state/compare-alive/0"), Path("outputs/2026-01-01/11-00-00/model")]
    for folder in (*old, *new):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x" * 2_000_000, encoding="utf-8")
    age(
        *(
            Path(*folder.parts[:3]) if folder.parts[0] == "outputs" else Path(*folder.parts[:2])
            for folder in old
        )
    )
    free(project, dry=True)
    assert all(folder.exists() for folder in (*old, *new))
    assert "can be freed: 2 leftovers in .state/, 4.0 MB" in caplog.messages
    free(project)
    assert not any(folder.exists() for folder in old) and all(folder.exists() for folder in new)
    free(project, days=0)
    assert new[0].exists() and not new[1].exists()  # a comparison that runs now


@pytest.mark.parametrize("name", ["pipeline", "routine"])
def test_nothing_is_freed_while_something_runs(name: str, project: Project) -> None:
    state = project.settings().paths.state
    state.mkdir()
    with (
        FileLock(state / f"{name}.lock"),
        pytest.raises(ValueError, match=f"the {name} runs in this folder"),
    ):
        free(project)


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    return subprocess.run(
        ["git", *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.slow
@pytest.mark.row("D3")
def test_data_of_commits_workspace_and_kept_runs_stay(history: History, project: Project) -> None:
    """The workspace, two commits, a kept run and a run that goes each name a version of the data."""
    Path("dvc.yaml").unlink()
    git("init", "--quiet")
    dvc("init", "--quiet", check=True)
    dvc("remote", "add", "-d", "storage", str(project.folder / "remote"), check=True)
    folder, hashes = Path("data/some"), {}
    folder.mkdir()
    for name in ("old", "head", "kept", "gone", "workspace"):
        for part in ("one", "two"):
            (folder / part).write_text(f"{name} {part}", encoding="utf-8")
        dvc("add", str(folder), check=True)
        hashes[name] = module("experiments.inputs").dvc_hash(folder)
        assert hashes[name] in Path("data/some.dvc").read_text(encoding="utf-8")
        if name in ("old", "head"):
            git("add", "--all")
            git("commit", "--quiet", "-m", name)
        if name == "gone":
            dvc("push", check=True)
    history.run(time.time(), **{"dvc.data/some": hashes["kept"]})
    history.run(**{"dvc.data/some": hashes["gone"]})

    def stored(where: str) -> set[str]:
        files = Path(where).rglob("files/md5/*/*")
        return {p.parent.name + p.name for p in files}

    before = stored("remote")
    free(project)
    assert {name for name, md5 in hashes.items() if md5 in stored(".dvc/cache")} == {*hashes} - {
        "gone"
    }
    assert len(stored(".dvc/cache")) == 3 * 4 and hashes["gone"] in before == stored("remote")
    for commit, name in {"HEAD": "head", "HEAD~1": "old"}.items():
        git("checkout", "--force", "--quiet", commit)
        dvc("checkout", "--force", check=True)
        assert (folder / "two").read_text(encoding="utf-8") == f"{name} two"


def test_a_cache_that_others_share_is_left_alone(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "-m", "first")
    dvc("init", "--quiet", check=True)
    shared = tmp_path_factory.mktemp("shared")
    dvc("cache", "dir", str(shared), check=True)
    (shared / "files/md5/ab").mkdir(parents=True)
    (shared / "files/md5/ab" / ("c" * 30)).write_text("of another project", encoding="utf-8")
    assert gc.unused_data(set()) == []

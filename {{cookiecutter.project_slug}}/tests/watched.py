"""A made-up model and its stream of requests: what the monitor reads, without a trained network or
a server.
"""

import argparse
import json
import logging
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.utils import instantiate
from kinds import as_kind, relabel
from scipy.special import softmax

from {{cookiecutter.package_name}}.data.ingest import content_hash
from {{cookiecutter.package_name}}.monitoring import routine
from {{cookiecutter.package_name}}.monitoring.samples import Sample
from {{cookiecutter.package_name}}.packaging.bundle import seal
from {{cookiecutter.package_name}}.provenance import sha256, write_json
from {{cookiecutter.package_name}}.serving.store import Record, Store
from {{cookiecutter.package_name}}.settings import Settings, parse
from {{cookiecutter.package_name}}.task.features import Features, row_to_instance

ROOT = Path(__file__).parents[1]
Stream = Callable[..., list[str]]
Feed = Callable[..., None]
STAND_IN = """
import os, sys, time
from pathlib import Path
from filelock import FileLock
verb, settings = sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:])
if verb == "ingest":
    if os.environ.get("BROKEN"):
        sys.exit("no disk left")
    if "SLOW" in os.environ:
        with FileLock(os.environ["SLOW"] + ".lock"):
            Path(os.environ["SLOW"]).touch()
            time.sleep(120)
    Path("count.txt").write_text(str(len(list(Path("data/feedback").glob("*.parquet")))))
if verb == "promote":
    with open(settings["paths.audit"], "a") as file:
        file.write(Path("count.txt").read_text() + " " + os.readlink("tracker.db") + "\\n")
    sys.exit(int(os.environ.get("GATE", "0")))
if verb == "pull":
    Path(settings["paths.live"], "pulled").touch()
"""
PIPELINE = f"""
stages:
  ingest:
    cmd: '"{sys.executable}" -m stand_in ingest'
    deps: [data/feedback]
    outs: [count.txt]
"""
IGNORED = "tracker.db\nlive\nlogs\nstore\n.state\nreports\naudit\ndata/raw\n"


@pytest.fixture(scope="session")
def raw_settings() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def kind(request: pytest.FixtureRequest, raw_settings: dict[str, Any]) -> str:
    """The task's own kind, or the one that a test is marked with."""
    return str(getattr(request, "param", raw_settings["data"]["kind"]))


@pytest.fixture
def settings(raw_settings: dict[str, Any], kind: str) -> Settings:
    """The project's settings with the monitor's limits written out, so that an edit of them breaks
    no test.
    """
    limits = {
        "window": 300,
        "min_rows": 200,
        "alpha": 0.01,
        "max_error_rate": 0.1,
        "max_reference": 200,
    }
    limits |= {"max_duplicates": 0.5, "max_contradictions": 0.05, "retrain_min_labels": 20}
    return parse({**as_kind(raw_settings, kind), "monitoring": limits})


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project as the working directory, with log files of its own."""
    folder = tmp_path / "a project"
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "manifest.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(folder)
    yield folder
    for name in ("monitor", "routine"):
        logger = logging.getLogger(f"{{cookiecutter.package_name}}.{name}")
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True  # pytest adds a handler of its own to loggers that do not


def sample(
    labels: int, rows: int, seed: int, noise: float = 0.0, only: int | None = None
) -> Sample:
    """Answers of a fair model on `rows` requests; `noise` spoils them, `only` asks for one label
    alone.

    Without labels they are values around 100 with a standard deviation of 20 or more.
    """
    rng = np.random.default_rng(seed)
    if labels:
        truth = rng.integers(0, labels, rows) if only is None else np.full(rows, only)
        logits = 4 * np.eye(labels)[truth] + rng.normal(0, 1 + noise, (rows, labels))
        answers, hidden = (
            {"probabilities": softmax(logits, axis=1), "label": logits.argmax(axis=1)},
            logits,
        )
    else:
        hidden = rng.normal(0 if only is None else only, 1 + noise, (rows, 2))
        answers = {"value": 100 + 20 * hidden[:, 0], "deviation": np.exp(0.1 * hidden[:, 1])}
    embedding = np.hstack([hidden, rng.normal(0, 1, (rows, 2))])
    return Sample(
        answers, embedding, {"size": rng.normal(noise, 1, rows), "depth": rng.normal(0, 1, rows)}
    )


@pytest.fixture
def labels(settings: Settings) -> list[str]:
    return settings.data.labels


@pytest.fixture
def draw(labels: list[str]) -> Callable[..., Sample]:
    return partial(sample, len(labels))


@pytest.fixture
def draw_values() -> Callable[..., Sample]:
    return partial(sample, 0)


@pytest.fixture
def identity(settings: Settings) -> str:
    """Identity of the champion in live/, whose reference was drawn from the same stream."""
    folder, labels = settings.paths.live / "1-test", settings.data.labels
    folder.mkdir(parents=True)
    reference = sample(len(labels), 400, seed=1)
    assert reference.embedding is not None
    names = sorted(reference.signals)
    arrays = {name: values for name, values in reference.answers.items() if name != "label"}
    arrays |= {"embedding": reference.embedding, "signal_names": np.array(names)}
    arrays |= {"signals": np.stack([reference.signals[name] for name in names], axis=1)}
    np.savez(folder / "reference.npz", allow_pickle=False, **arrays)
    card: dict[str, Any] = {
        "name": "a model",
        "kind": settings.data.kind,
        "task": "made up",
        "labels": labels,
    }
    card |= {"inputs": {}, "outputs": {}, "features": {}, "decision": {}, "label_scale": 1.0}
    card |= {"candidate": "network", "owner": "", "code": "", "data": "", "dependencies": {}}
    (folder / "bundle.json").write_text(json.dumps(card), encoding="utf-8")
    found = seal(folder)
    current = {
        "champion": {"version": "1-test", "path": "1-test", "identity": found},
        "challenger": None,
    }
    (settings.paths.live / "current.json").write_text(json.dumps(current), encoding="utf-8")
    return found


@pytest.fixture
def ask(settings: Settings, identity: str) -> Stream:
    """Stores predictions as the server does, and feedback on the first `labelled`; `wrong` of it
    disagrees.
    """

    def ask(
        sample: Sample,
        instances: list[Any] | None = None,
        labelled: int = 0,
        wrong: int = 0,
        **changes: Any,
    ) -> list[str]:
        labels = settings.data.labels
        records = []
        for i in range(len(next(iter(sample.answers.values())))):
            embedding = None if sample.embedding is None else sample.embedding[i].round(5).tolist()
            given, answer = _answer(sample, labels, i)
            stored = {**answer, "embedding": embedding}
            stored["signals"] = {name: float(values[i]) for name, values in sample.signals.items()}
            base: dict[str, Any] = {
                "prediction_id": uuid.uuid4().hex,
                "time": 1.7e9 + i,
                "version": "1-test",
            }
            base |= {
                "identity": identity,
                "instance": instances[i] if instances else {"x": i},
                "latency_ms": 1.0,
            }
            base |= given
            records.append(Record(**{**base, "signals": stored, **changes}))  # type: ignore[typeddict-item]
        store = Store(settings.paths.store)
        store.append(records)
        for i, record in enumerate(records[:labelled]):
            store.feedback(record["prediction_id"], _truth(record["label"], labels, i < wrong))
        assert store.flush()
        store.close()
        return [record["prediction_id"] for record in records]

    return ask


def _answer(sample: Sample, labels: list[str], i: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the store keeps of answer i: its columns, and what lies in `signals`."""
    if labels:
        row, label = sample.answers["probabilities"][i], int(sample.answers["label"][i])
        given = {
            "label": labels[label],
            "confidence": float(row[label]),
            "abstain": bool(row[label] < 0.5),
        }
        return given, {"probabilities": row.round(8).tolist()}
    value, deviation = (float(sample.answers[name][i]) for name in ("value", "deviation"))
    given = {"label": value, "confidence": -deviation, "abstain": deviation > 2}
    return given, {
        "interval": [value - 2 * deviation, value + 2 * deviation],
        "deviation": deviation,
    }


def _truth(answered: Any, labels: list[str], wrong: bool) -> Any:
    """A true label: the answered one, or another; a value near the answered one, or far from it."""
    if labels:
        return labels[(labels.index(answered) + wrong) % len(labels)]
    return answered + (50 if wrong else 1)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No git identity but that of the first commit, no repository around the test's folder."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv("GATE", raising=False)


def git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(project: Path, settings: Settings) -> Path:
    """The project as a git and DVC repository with a stand-in for its package."""
    for folder in ("src/stand_in", "data/feedback", "live", "audit"):
        (project / folder).mkdir(parents=True)
    (project / "src/stand_in/__main__.py").write_text(STAND_IN, encoding="utf-8")
    (project / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (project / ".gitignore").write_text(IGNORED, encoding="utf-8")
    (project / "data/feedback/.gitkeep").touch()
    git("init", "--quiet", "--initial-branch=main")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], check=True)
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "first")
    return project


@pytest.fixture
def table(settings: Settings, raw_settings: dict[str, Any], kind: str) -> pd.DataFrame:
    """Distinct raw rows of the task; the first ten are the snapshot in data/raw."""
    rows: pd.DataFrame = instantiate(settings.data.source)[:200]
    rows = rows.assign(label=relabel(rows["label"], raw_settings, kind))
    rows = rows[~content_hash(rows).duplicated()].reset_index(drop=True)
    assert len(rows) > 60
    rows[:10].assign(content=content_hash(rows[:10])).to_parquet(
        settings.paths.raw / "data.parquet"
    )
    entry = {"sha256": sha256(settings.paths.raw / "data.parquet")}
    write_json(settings.paths.raw / "manifest.json", {"files": {"data.parquet": entry}})
    return rows


@pytest.fixture
def feed(settings: Settings, table: pd.DataFrame) -> Feed:
    """Stores rows of the table as answered requests with feedback."""

    def feed(start: int, stop: int, prefix: str = "p", label: Any = None, **changes: Any) -> None:
        store, records = Store(settings.paths.store), []
        rows = table[start:stop].to_dict("records")
        features = Features.model_validate(settings.data.features)
        for i, row in enumerate(rows, start):
            base: dict[str, Any] = {
                "prediction_id": f"{prefix}{i}",
                "time": 1.0,
                "version": "1",
                "identity": "x",
            }
            base |= {
                "instance": row_to_instance(row, features),
                "label": row["label"],
                "confidence": 1.0,
                "abstain": False,
            }
            base |= {"latency_ms": 1.0, "signals": {}, **changes}
            records.append(Record(**base))  # type: ignore[typeddict-item]
        store.append(records)
        for record, row in zip(records, rows, strict=True):
            store.feedback(record["prediction_id"], row["label"] if label is None else label)
        assert store.flush()
        store.close()

    return feed


@pytest.fixture
def stand_in(settings: Settings) -> Settings:
    """Settings with which `repository` retrains."""
    raw = settings.model_dump(mode="json")
    raw["project"]["package"], raw["tracking"]["uri"] = "stand_in", "sqlite:///tracker.db"
    raw["paths"] |= {
        "audit": "audit/log.txt",
        "state": ".state",
        "live": "live",
        "store": "store/predictions.db",
    }
    return parse(raw)


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monitor says that the stream changed."""
    report = {"verdict": "alarm", "alarm": True, "reasons": ["it changed"], "warnings": []}
    monkeypatch.setattr(routine, "monitor", lambda settings: report)


def run(settings: Settings, force: bool = False) -> int:
    """Exit code of the verb `routine`."""
    time = "2030-01-01T04:15:00+00:00"
    return routine.run(settings, argparse.Namespace(force=force, scheduled=time))


def last_line() -> dict[str, Any]:
    return dict(json.loads(Path("logs/routine.jsonl").read_text(encoding="utf-8").splitlines()[-1]))


def untouched(branches: int = 0) -> bool:
    """No worktree, no change in the checkout, and only the branches that a run may leave."""
    assert len(git("worktree", "list").splitlines()) == 1
    assert not Path(".state/routine").exists()
    assert git("status", "--porcelain") == ""
    assert len(git("branch", "--list", "routine/*").splitlines()) == branches
    return True


def feed_bad_labels(feed: Feed, table: pd.DataFrame) -> None:
    """Nineteen good ones, two rows about which people disagree, and labels that the task cannot
    have.
    """
    one, other = table["label"].unique()[:2]
    feed(10, 29)
    feed(29, 31, label=one)
    feed(29, 31, prefix="other", label=other)
    feed(40, 50, label="no such label")
    feed(50, 60, label=float("inf"))

"""A made-up model and its stream of requests: what the monitor reads, without a trained network or a server."""

import json
import logging
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from {{ cookiecutter.package_name }}.modeling.predictions import softmax
from {{ cookiecutter.package_name }}.monitoring.drift import Sample
from {{ cookiecutter.package_name }}.packaging.bundle import seal
from {{ cookiecutter.package_name }}.serving.store import Record, Store
from {{ cookiecutter.package_name }}.settings import Settings, parse

ROOT = Path(__file__).parents[2]
Stream = Callable[..., list[str]]


@pytest.fixture(scope="session")
def raw_settings() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))


@pytest.fixture
def settings(raw_settings: dict[str, Any]) -> Settings:
    """The project's settings with the monitor's limits written out, so that an edit of them breaks no test."""
    limits = {"window": 300, "min_rows": 200, "alpha": 0.01, "max_error_rate": 0.1, "max_reference": 200}
    limits |= {"max_duplicates": 0.5, "max_contradictions": 0.05, "retrain_min_labels": 20}
    return parse({**raw_settings, "monitoring": limits})


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty project as the working directory, with log files of its own."""
    folder = tmp_path / "a project"
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "manifest.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(folder)
    yield folder
    for name in ("monitor", "routine"):
        logger = logging.getLogger(f"{{ cookiecutter.package_name }}.{name}")
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.propagate = True  # pytest adds a handler of its own to loggers that do not


def sample(labels: int, rows: int, seed: int, noise: float = 0.0, only: int | None = None) -> Sample:
    """Answers of a fair model on `rows` requests; `noise` spoils them, `only` asks for one label alone."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, rows) if only is None else np.full(rows, only)
    logits = 4 * np.eye(labels)[truth] + rng.normal(0, 1 + noise, (rows, labels))
    embedding = np.hstack([logits, rng.normal(0, 1, (rows, 2))])
    return Sample(softmax(logits), embedding, {"size": rng.normal(noise, 1, rows), "depth": rng.normal(0, 1, rows)})


@pytest.fixture
def labels(settings: Settings) -> list[str]:
    return settings.data.labels


@pytest.fixture
def draw(labels: list[str]) -> Callable[..., Sample]:
    return partial(sample, len(labels))


@pytest.fixture
def identity(settings: Settings) -> str:
    """Identity of the champion in live/, whose reference was drawn from the same stream."""
    folder, labels = settings.paths.live / "1-test", settings.data.labels
    folder.mkdir(parents=True)
    reference = sample(len(labels), 400, seed=1)
    assert reference.embedding is not None
    names = sorted(reference.signals)
    np.savez(
        folder / "reference.npz",
        probabilities=reference.probabilities,
        embedding=reference.embedding,
        signals=np.stack([reference.signals[name] for name in names], axis=1),
        signal_names=np.array(names),
    )
    card: dict[str, Any] = {"name": "a model", "kind": settings.data.kind, "task": "made up", "labels": labels}
    card |= {"inputs": {}, "outputs": {}, "features": {}, "temperature": 1.0, "abstain_below": 0.5}
    card |= {"conformal_quantile": 0.5, "candidate": "network", "owner": "", "code": "", "data": "", "dependencies": {}}
    (folder / "bundle.json").write_text(json.dumps(card), encoding="utf-8")
    found = seal(folder)
    current = {"champion": {"version": "1-test", "path": "1-test", "identity": found}, "challenger": None}
    (settings.paths.live / "current.json").write_text(json.dumps(current), encoding="utf-8")
    return found


@pytest.fixture
def ask(settings: Settings, identity: str) -> Stream:
    """Stores predictions as the server does, and feedback on the first `labelled`; `wrong` of it disagrees."""

    def ask(
        sample: Sample, instances: list[Any] | None = None, labelled: int = 0, wrong: int = 0, **changes: Any
    ) -> list[str]:
        labels = settings.data.labels
        records = []
        for i, row in enumerate(sample.probabilities):
            embedding = None if sample.embedding is None else sample.embedding[i].round(5).tolist()
            stored = {"probabilities": row.round(8).tolist(), "embedding": embedding}
            stored["signals"] = {name: float(values[i]) for name, values in sample.signals.items()}
            base: dict[str, Any] = {"prediction_id": uuid.uuid4().hex, "time": 1.7e9 + i, "version": "1-test"}
            base |= {"identity": identity, "instance": instances[i] if instances else {"x": i}, "latency_ms": 1.0}
            base |= {"label": labels[int(row.argmax())], "confidence": row.max(), "abstain": bool(row.max() < 0.5)}
            records.append(Record(**{**base, "signals": stored, **changes}))  # type: ignore[typeddict-item]
        store = Store(settings.paths.store)
        store.append(records)
        for i, record in enumerate(records[:labelled]):
            true = labels[(labels.index(record["label"]) + (i < wrong)) % len(labels)]
            store.feedback(record["prediction_id"], true)
        assert store.flush()
        store.close()
        return [record["prediction_id"] for record in records]

    return ask

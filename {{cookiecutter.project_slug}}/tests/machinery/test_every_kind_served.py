"""Answers of every kind: over /predict and /v2, in the store, in the metrics and in batches."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import served
from kinds import every_kind

from {{cookiecutter.package_name}}.modeling import kinds
from {{cookiecutter.package_name}}.monitoring.retrain import labelled_predictions
from {{cookiecutter.package_name}}.packaging.bundle import Bundle
from {{cookiecutter.package_name}}.serving import batch
from {{cookiecutter.package_name}}.serving.predictor import load_live
from {{cookiecutter.package_name}}.serving.store import models, recent
from {{cookiecutter.package_name}}.settings import Settings
from {{cookiecutter.package_name}}.types import Decisions

client, kind, live, raw_settings = served.client, served.kind, served.live, served.raw_settings
release, rows, serve, settings = served.release, served.rows, served.serve, served.settings
table, wait_for = served.table, served.wait_for
LOG = logging.getLogger(__name__)
pytestmark = [every_kind, pytest.mark.row("S1", "S3", "S5", "S6")]


def predictions(client: httpx.Client, rows: Any, count: int) -> list[dict[str, Any]]:
    answer = client.post("/predict", json={"instances": rows.items[:count]})
    return list(answer.json()["predictions"])


def test_predictions_are_the_bundles_own(
    client: httpx.Client, settings: Settings, rows: Any
) -> None:
    champion = load_live(settings.paths.live)
    answers = champion.predict({name: array[:40] for name, array in rows.inputs.items()}).answers
    given, labels = predictions(client, rows, 40), settings.data.labels
    assert [answer["abstain"] for answer in given] == answers.abstain.tolist()
    near = 1e-4 * champion.bundle.card.label_scale
    if not isinstance(answers, Decisions):
        columns = {"value": "value", "intervals": "interval", "deviation": "deviation"}
        for name, field in columns.items():
            values = [answer[field] for answer in given]
            np.testing.assert_allclose(values, getattr(answers, name), atol=near)
        return
    for i, answer in enumerate(given):
        assert answer["label"] == labels[answers.label[i]]
        assert list(answer["probabilities"]) == labels
        values = list(answer["probabilities"].values())
        np.testing.assert_allclose(values, answers.probabilities[i], atol=near)
        assert answer["confidence"] == answer["probabilities"][answer["label"]]
        inside = zip(labels, answers.sets[i], strict=True)
        assert answer["set"] == [name for name, is_in in inside if is_in]
    if len(labels) == 2:  # the stored threshold decides, not the larger probability
        high = [answer["probabilities"][labels[1]] >= 0.3 for answer in given]
        assert [answer["label"] == labels[1] for answer in given] == high


def test_what_is_stored_is_what_the_monitor_compares(
    client: httpx.Client, settings: Settings, rows: Any, wait_for: Any
) -> None:
    answers = predictions(client, rows, 5)
    id_ = answers[0]["prediction_id"]
    feedback = {"prediction_id": id_, "label": rows.label}
    assert client.post("/feedback", json=feedback).status_code == 200
    wrong = client.post("/feedback", json=feedback | {"label": rows.wrong})
    assert wrong.status_code == 422
    wait_for(lambda: bool(recent(settings.paths.store, 5, labelled=True)))
    for row, answer in zip(recent(settings.paths.store, 5), answers, strict=True):
        signals = row["signals"]
        if settings.data.labels:
            stored = dict(zip(settings.data.labels, signals["probabilities"], strict=True))
            assert stored == pytest.approx(answer["probabilities"], abs=1e-6)
            assert row["label"] == answer["label"]
        else:
            assert row["label"] == answer["value"] and signals["interval"] == answer["interval"]
            assert signals["deviation"] == -row["confidence"] == answer["deviation"]


def test_v2_gives_the_same_numbers(client: httpx.Client, settings: Settings, rows: Any) -> None:
    path, labels = f"/v2/models/{settings.project.name}/infer", settings.data.labels
    inputs = []
    for name, array in rows.inputs.items():
        tensor = {"name": name, "datatype": "FP32", "shape": [3, *array.shape[1:]]}
        values = array[:3] + rows.centre.get(name, 0)
        inputs.append({**tensor, "data": values.tolist()})
    outputs = client.post(path, json={"inputs": inputs}).json()["outputs"]
    arrays = {output["name"]: output for output in outputs}
    assert len(arrays["prediction_id"]["data"]) == 3
    for name in ("probabilities",) if labels else ("value", "interval"):
        own = [answer[name] for answer in predictions(client, rows, 3)]
        expected = [list(one.values()) for one in own] if labels else own
        values = np.reshape(arrays[name]["data"], arrays[name]["shape"])
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_metrics_count_answers(client: httpx.Client, settings: Settings, rows: Any) -> None:
    predictions(client, rows, 5)
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if line[0] != "#")
    values = {name: float(value) for name, _, value in pairs}
    counts = [v for name, v in values.items() if name.startswith("model_predictions_total")]
    size = "confidence" if settings.data.labels else "deviation"
    name = f"model_{size}_count" + '{version="1"}'
    assert sum(counts) == 5 == values[name]


def test_a_batch_has_the_columns_of_its_kind(
    settings: Settings, live: str, rows: Any, tmp_path: Path
) -> None:
    rows.table.to_parquet(tmp_path / "in.parquet")
    champion = load_live(settings.paths.live)
    batch.score(champion, [tmp_path / "in.parquet"], tmp_path / "out.parquet", settings.data, LOG)
    added = [c for c in pd.read_parquet(tmp_path / "out.parquet") if c not in rows.table]
    values = ["predicted_value", "interval_low", "interval_high", "abstain", "model", "problem"]
    names = ["predicted_label", "confidence", "abstain", "model", "problem"]
    assert added == (names if settings.data.labels else values)


def test_parity_and_labels(settings: Settings, live: str, rows: Any) -> None:
    bundle = Bundle.load(settings.paths.live / "1")
    raw = bundle.infer(rows.inputs)["raw"]
    one, other = bundle.decide(raw), bundle.decide(raw + np.eye(1, raw.shape[1]))
    scale = bundle.card.label_scale
    assert bundle.kind.difference(one, one, scale) == 0 < bundle.kind.difference(one, other, scale)
    for label in (rows.wrong, None, True, [rows.label], float("inf")):
        with pytest.raises(ValueError, match="must be"):
            kinds.of(settings.data.kind).check_label(label, settings.data.labels)


def test_feedback_is_judged_by_the_model_that_answered(
    client: httpx.Client, settings: Settings, rows: Any, release: Any, wait_for: Any
) -> None:
    id_ = predictions(client, rows, 1)[0]["prediction_id"]
    wait_for(lambda: len(recent(settings.paths.store, 1)) == 1)
    changes: dict[str, Any] = {"kind": "binary", "labels": ["own", "other"], "name": "own"}
    other = settings.model_copy(update={"data": settings.data.model_copy(update=changes)})
    table = rows.table.assign(label=np.where(np.arange(len(rows.table)) % 2, "own", "other"))
    newcomer = replace(rows, table=table, labels=table["label"].tolist())
    identity = served.build(settings.paths.live / "2", other, newcomer)
    served.point(settings.paths.live, "2", identity)
    wait_for(lambda: client.get("/readyz").json()["model"]["version"] == "2")
    right = {"prediction_id": id_, "label": rows.label}
    assert client.post("/feedback", json=right).status_code == 200
    wrong = client.post("/feedback", json={**right, "label": "own"})
    assert wrong.status_code == 422, "a class of the newcomer is none of the old model's"
    answer = predictions(client, rows, 1)[0]
    own = {"prediction_id": answer["prediction_id"], "label": "own"}
    assert client.post("/feedback", json=own).status_code == 200
    wait_for(lambda: len(recent(settings.paths.store, 9, labelled=True)) == 2)
    kept = labelled_predictions(other)
    assert [row["prediction_id"] for row in kept] == [answer["prediction_id"]]
    assert {model["task"] for model in models(settings.paths.store).values()} == {
        settings.data.name,
        "own",
    }

"""The HTTP interface on a real server: right answers, and a 4xx with field and rule for every wrong
question.
"""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from {{cookiecutter.package_name}}.serving.predictor import Champion, load_live
from {{cookiecutter.package_name}}.serving.store import recent
from {{cookiecutter.package_name}}.settings import Settings
from {{cookiecutter.package_name}}.task import features

JSON = {"Content-Type": "application/json"}
Serve = Callable[..., httpx.Client]


def send(client: httpx.Client, body: bytes, path: str = "/predict") -> tuple[int, dict[str, Any]]:
    response = client.post(path, content=body, headers=JSON)
    return response.status_code, response.json()


def asked(client: httpx.Client, rows: Any, count: int) -> list[dict[str, Any]]:
    predictions = client.post("/predict", json={"instances": rows.items[:count]}).json()[
        "predictions"
    ]
    assert {prediction["abstain"] for prediction in predictions} == {True, False}
    return list(predictions)


@pytest.mark.row("S1")
def test_an_answer_is_the_bundles_own(
    client: httpx.Client, settings: Settings, rows: Any, live: str
) -> None:
    champion = load_live(settings.paths.live)
    inputs = {name: array[:40] for name, array in rows.inputs.items()}
    expected = champion.encode(champion.predict(inputs).answers)
    near, right = 1e-4 * champion.bundle.card.label_scale, 0
    for given, own, label in zip(asked(client, rows, 40), expected, rows.labels, strict=False):
        assert given.pop("prediction_id") and list(given) == list(own)
        right += champion.bundle.kind.is_right(given, label)
        for name, value in own.items():
            if isinstance(value, dict | float):
                assert given[name] == pytest.approx(value, abs=near)
            elif name != "interval":
                assert given[name] == value
    assert right > 20  # a real model, not chance


@pytest.mark.row("S1", "S5", "S6", "S11")
def test_a_prediction_is_stored_and_takes_feedback(
    client: httpx.Client, settings: Settings, rows: Any, live: str, wait_for: Callable[..., None]
) -> None:
    body = client.post("/predict", json={"instances": rows.items[:2]}).json()
    answer, label = body["predictions"][1], rows.label
    assert body["model"] == {"version": "1", "identity": live}
    given = {"prediction_id": answer["prediction_id"], "label": label}
    assert client.post("/feedback", json=given).status_code == 200
    assert client.post("/feedback", json={**given, "prediction_id": "unknown"}).status_code == 404
    assert (
        send(client, json.dumps({**given, "prediction_id": "\ud800"}).encode(), "/feedback")[0]
        == 404
    )
    for wrong in (rows.wrong, None, True, [label], 10**400):
        status, refused = send(client, json.dumps({**given, "label": wrong}).encode(), "/feedback")
        assert status == 422 and refused["details"][0]["field"] == "label", wrong
        assert refused["details"][0]["rule"].startswith("must be"), wrong
    wait_for(lambda: bool(recent(settings.paths.store, 2, labelled=True)))
    first, row = recent(settings.paths.store, 2)
    assert first["feedback"] is None and row["feedback"] == label
    assert row["prediction_id"] == answer["prediction_id"]
    assert row["instance"] == rows.items[1] and row["identity"] == live and row["version"] == "1"
    assert (
        row["abstain"] == answer["abstain"]
        and row["latency_ms"] > 0
        and row["signals"]["embedding"] is None
    )
    assert all(isinstance(value, float | None) for value in row["signals"]["signals"].values())
    names = {"label", "value"} & set(answer)
    assert row["label"] == answer[names.pop()]


HOSTILE = {
    "nothing": (b"", 400, "body"),
    "truncated": (b'{"instances": [', 400, "body"),
    "nan": (b'{"instances": [{"x": NaN}]}', 400, "body"),
    "infinity": (b'{"instances": [{"x": -Infinity}]}', 400, "body"),
    "overflow": (b'{"instances": [{"x": 1e999}]}', 400, "body"),
    "endless number": (b'{"instances": ' + b"9" * 5000 + b"}", 400, "body"),
    "deep": (b'{"instances": ' + b"[" * 100_000, 400, "body"),
    "deep and closed": (b'{"instances": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, "body"),
    "no text": (b'{"instances": "\xff"}', 400, "body"),
    "array": (b"[]", 422, "body"),
    "nothing asked": (b"{}", 422, "instances"),
    "null": (b'{"instances": null}', 422, "instances"),
    "empty": (b'{"instances": []}', 422, "instances"),
    "no object": (b'{"instances": [7]}', 422, "instances[0]"),
    "unknown inner field": (b'{"instances": [{"no such field": 1}]}', 422, "instances[0]"),
    "half a character": (b'{"instances": [{"\\ud800": 1}]}', 422, "instances[0]"),
    "too many": (json.dumps({"instances": [{}] * 257}).encode(), 422, "instances"),
    "too large": (b" " * 16_000_001, 413, "body"),
}


@pytest.mark.row("S7")
def test_wrong_bodies_types_and_paths_are_refused_by_field_and_rule(
    client: httpx.Client, rows: Any
) -> None:
    for name, (body, status, field) in HOSTILE.items():
        got, answer = send(client, body)
        assert got == status, name
        assert answer["error"] and answer["details"][0]["field"].startswith(field), name
        assert all(detail["rule"] for detail in answer["details"]), name
    assert client.get("/healthz").status_code == 200
    body = json.dumps({"instances": rows.items[:1]}).encode()
    kinds = ("text/plain", "application/x-www-form-urlencoded", "")
    for headers in [{"Content-Type": k} for k in kinds] + [{**JSON, "Content-Encoding": "gzip"}]:
        assert client.post("/predict", content=body, headers=headers).status_code == 415, headers
    assert client.get("/predict").status_code == 405
    for path in ("/nothing", "/predict/", "/docs", "/redoc"):
        assert client.get(path).status_code == 404
    assert client.get("/nothing").json()["details"][0]["field"] == "path"


@pytest.mark.row("S7")
def test_every_field_of_an_item_is_checked(client: httpx.Client, rows: Any) -> None:
    item = rows.items[0]
    for name in item:
        wrongs: list[Any] = [True, {}, [[[]]], "?" * 300, 1e300]
        for wrong in wrongs:
            status, answer = send(
                client, json.dumps({"instances": [item, {**item, name: wrong}]}).encode()
            )
            assert status == 422 and answer["details"][0]["field"].startswith(
                f"instances[1].{name}"
            ), (name, wrong)
            assert answer["details"][0]["rule"], (name, wrong)
    status, answer = send(client, json.dumps({"instances": [{**item, "extra": 1}]}).encode())
    assert status == 422 and answer["details"][0]["field"] == "instances[0].extra"
    status, answer = send(client, json.dumps({"instances": [item], "extra": 1}).encode())
    assert status == 422 and answer["details"][0]["field"] == "extra"


@pytest.mark.row("S8", "S11")
def test_every_answer_is_guarded_and_the_page_needs_nothing_from_elsewhere(
    client: httpx.Client,
) -> None:
    for response in (*map(client.get, ("/", "/nothing", "/metrics")), client.post("/predict")):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["referrer-policy"] == "no-referrer"
    page = client.get("/").text
    assert "<script>" in page and "/predict" in page and "/feedback" in page
    assert not [m for m in ("http://", "https://", 'src="', "@import", "style=") if m in page]


@pytest.mark.row("S1")
def test_the_schema_describes_the_requests(client: httpx.Client, settings: Settings) -> None:
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]["$ref"]
    known = schema["components"]["schemas"]
    assert (
        known[body.rpartition("/")[2]]["properties"]["instances"]["items"]["$ref"].rpartition("/")[
            2
        ]
        in known
    )
    names = {"InferRequest", "Tensor", "FeedbackRequest", "PredictAnswer", "ErrorAnswer"}
    assert names | {"ClassPrediction", "ValuePrediction"} <= set(known)
    assert known["Instance"] == features.instance_schema(load_live(settings.paths.live).features)


@pytest.mark.row("S1")
def test_the_model_is_described_as_its_bundle_says(
    client: httpx.Client, settings: Settings, live: str
) -> None:
    said, data = client.get("/model").json(), settings.data
    assert said["title"] == settings.project.title != settings.project.name
    assert said["model"] == {"version": "1", "identity": live} and said["kind"] == data.kind
    assert said["labels"] == data.labels and said["features"] == data.features
    assert said["predicts"] == data.predicts and said["unit"] == "kg"


@pytest.mark.row("S1")
def test_metrics_count_what_happened(client: httpx.Client, settings: Settings, rows: Any) -> None:
    client.post("/predict", json={"instances": rows.items[:5]})
    client.get("/made/up/path")
    lines = client.get("/metrics").text.splitlines()
    values = {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }
    assert values['http_requests_total{path="/predict",status="200"}'] == 1
    assert values['http_requests_total{path="other",status="404"}'] == 1
    assert (
        sum(value for name, value in values.items() if name.startswith("model_predictions_total"))
        == 5
    )
    size = "confidence" if settings.data.labels else "deviation"
    assert (
        values[f"model_{size}_count" + '{version="1"}'] == 5
        and values[f"model_{size}_sum" + '{version="1"}'] > 0
    )
    assert 0 <= values['model_abstentions_total{version="1"}'] <= 5
    assert (
        values["store_dropped_total"] == 0
        and "store_queue_rows" in values
        and "http_requests_in_flight" in values
    )
    assert any(name.startswith("model_info{") and value == 1 for name, value in values.items())


@pytest.mark.row("S8")
def test_keys_guard_what_asks_the_model(
    serve: Serve, live: str, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEYS", "first, second")
    client = serve()
    body = {"instances": rows.items[:1]}
    for key, status in {
        "": 401,
        "wrong": 401,
        "firs": 401,
        "first, second": 401,
        "first": 200,
        "second": 200,
    }.items():
        assert (
            client.post("/predict", json=body, headers={"X-API-Key": key}).status_code == status
        ), key
    assert client.post("/feedback", json={}).status_code == 401
    assert (
        client.post(f"/v2/models/{client.get('/v2').json()['name']}/infer", json={}).status_code
        == 401
    )
    for path in ("/", "/model", "/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert client.get(path).status_code == 200, path


@pytest.mark.row("S2")
def test_overload_is_refused_at_once(
    serve: Serve,
    live: str,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    wait_for: Callable[..., None],
) -> None:
    go, predict = threading.Event(), Champion.predict

    def slow(self: Champion, inputs: Any) -> Any:
        assert go.wait(30)
        return predict(self, inputs)

    client = serve(queue=3)
    monkeypatch.setattr(Champion, "predict", slow)
    body = {"instances": rows.items[:1]}
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(client.post, "/predict", json=body) for _ in range(12)]
        try:
            wait_for(lambda: sum(future.done() for future in asked) == 9)
            refused = [future.result() for future in asked if future.done()]
            assert client.get("/healthz").status_code == 200
        finally:
            go.set()
        answers = [future.result(20) for future in asked]
    assert all(r.status_code == 503 and r.headers["retry-after"] == "1" for r in refused)
    assert sorted(r.status_code for r in answers) == [200] * 3 + [503] * 9
    assert client.post("/predict", json=body).status_code == 200


@pytest.mark.row("S1")
def test_a_new_champion_takes_over_and_a_broken_one_does_not(
    serve: Serve,
    settings: Settings,
    rows: Any,
    release: Callable[..., str],
    wait_for: Callable[..., None],
) -> None:
    client, body = serve(), {"instances": rows.items[:1]}
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == client.get("/v2/health/ready").status_code == 503
    assert client.get("/model").status_code == 503
    assert client.post("/predict", json=body).status_code == 503
    release("1")
    wait_for(lambda: client.get("/readyz").status_code == 200)
    identity = release("2", temperature=2.0)
    wait_for(lambda: client.get("/readyz").json()["model"]["identity"] == identity)
    assert client.post("/predict", json=body).json()["model"]["version"] == "2"
    release("3", temperature=3.0, damaged=True)
    log = settings.paths.logs / "serve.jsonl"
    wait_for(lambda: "3" in log.read_text(encoding="utf-8") and "model.onnx" in log.read_text())
    lines = log.read_text(encoding="utf-8").splitlines()
    assert "2 goes on answering" in next(line for line in lines if "model.onnx" in line)
    answer = client.post("/predict", json=body).json()
    assert answer["model"] == {"version": "2", "identity": identity}

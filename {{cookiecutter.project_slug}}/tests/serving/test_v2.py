"""The Open Inference Protocol v2 on a real server."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

from {{cookiecutter.package_name}}.settings import Settings


def tensors(rows: Any, count: int) -> list[dict[str, Any]]:
    """As a client sends them: numbers as they are in a table."""
    return [
        {
            "name": name,
            "datatype": "FP32",
            "shape": [count, *array.shape[1:]],
            "data": (array[:count] + rows.centre.get(name, 0)).ravel().tolist(),
        }
        for name, array in rows.inputs.items()
    ]


@pytest.mark.row("S1")
def test_v2_describes_and_answers(client: httpx.Client, settings: Settings, rows: Any) -> None:
    name = settings.project.name
    assert client.get("/v2").json()["name"] == name
    for path in (
        "health/live",
        "health/ready",
        f"models/{name}/ready",
        f"models/{name}/versions/1/ready",
    ):
        assert client.get(f"/v2/{path}").status_code == 200, path
    assert client.get("/v2/models/other/ready").status_code == 404
    described = client.get(f"/v2/models/{name}").json()
    shapes = {tensor["name"]: tensor["shape"][1:] for tensor in described["inputs"]}
    assert shapes == {name: list(array.shape[1:]) for name, array in rows.inputs.items()}
    labels = settings.data.labels
    wanted = {"probabilities": [3, len(labels)]} if labels else {"value": [3], "interval": [3, 2]}
    shapes = {tensor["name"]: tensor["shape"] for tensor in described["outputs"]}
    known = {"raw": [-1, len(labels) or 2], "prediction_id": [-1]}
    assert shapes == known | {name: [-1, *shape[1:]] for name, shape in wanted.items()}
    asked = {"id": "42", "inputs": tensors(rows, 3), "outputs": [{"name": name} for name in wanted]}
    answer = client.post(f"/v2/models/{name}/infer", json=asked).json()
    assert answer["id"] == "42" and answer["model_version"] == "1"
    own = client.post("/predict", json={"instances": rows.items[:3]}).json()["predictions"]
    for output in answer["outputs"]:
        assert output["shape"] == wanted[output["name"]] and output["datatype"] == "FP64"
        given = [prediction[output["name"]] for prediction in own]
        expected = [list(one.values()) for one in given] if labels else given
        np.testing.assert_allclose(
            np.reshape(output["data"], output["shape"]), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.row("S7")
def test_v2_refuses_wrong_tensors(client: httpx.Client, settings: Settings, rows: Any) -> None:
    good, path = tensors(rows, 1), f"/v2/models/{settings.project.name}/infer"
    size = len(good[0]["data"])
    wrong: dict[str, dict[str, Any]] = {
        "name": {"name": "other"},
        "datatype": {"datatype": "INT64"},
        "shape": {"shape": [1, 1, 1, 1, 1, 1]},
        "negative": {"shape": [-1, *good[0]["shape"][1:]]},
        "zero": {"shape": [0, *good[0]["shape"][1:]], "data": []},
        "too many": {"shape": [257, *good[0]["shape"][1:]]},
        "short": {"data": good[0]["data"][1:]},
        "text": {"data": ["1"] * size},
        "truth": {"data": [True] * size},
        "beyond FP32": {"data": [1e39] * size},
        "endless": {"data": [10**400] * size},
        "ragged": {"data": [[0.0] * (size + 1)]},
        "mixed": {"data": [0.0] * (size - 1) + [[0.0]]},
        "unknown": {"extra": 1},
    }
    for name, change in wrong.items():
        body = {"inputs": [{**good[0], **change}, *good[1:]]}
        response = client.post(
            path, content=json.dumps(body)
        )  # the usual client names no content type
        status, answer = response.status_code, response.json()
        assert status == 422 and answer["details"][0]["field"].startswith("inputs"), (name, answer)
    unknown = {"inputs": good, "outputs": [{"name": "other"}]}
    response = client.post(path, json=unknown)
    assert (
        response.status_code == 422 and response.json()["details"][0]["field"] == "outputs[0].name"
    )

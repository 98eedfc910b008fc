"""The Open Inference Protocol v2 with JSON tensors, for existing clients.

https://github.com/kserve/open-inference-protocol
"""

import math
import time
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import Field

from ..packaging.bundle import Card
from ..task.features import inputs_to_instances
from ..types import Estimates
from .predictor import Champion, Inputs, Scored
from .protocol import Message, Refused, answer, check
from .service import Service

ROOT = "/v2/models/{name}"
FLOAT32_MAX = float(np.finfo(np.float32).max)
CLASSES = {"raw": "FP32", "probabilities": "FP64", "prediction_id": "BYTES"}
VALUES = {"raw": "FP32", "value": "FP64", "interval": "FP64", "prediction_id": "BYTES"}


class Tensor(Message):
    name: str
    shape: Annotated[list[int], Field(min_length=1, max_length=8)]
    datatype: str
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    data: list[Any]


class Wanted(Message):
    name: str
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]


class InferRequest(Message):
    id: str | None = None
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=64)]
    outputs: Annotated[list[Wanted], Field(max_length=64)] | None = None


BODY = {
    "requestBody": {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}}}
    }
}


def router(service: Service) -> APIRouter:
    """The endpoints under /v2."""
    routes = APIRouter()

    @routes.get("/v2")
    async def server() -> Response:
        return answer(
            {"name": service.champion().bundle.card.name, "version": "2", "extensions": []}
        )

    @routes.get("/v2/health/live")
    async def live() -> Response:
        return answer({"live": True})

    @routes.get("/v2/health/ready")
    async def ready() -> Response:
        service.champion()
        return answer({"ready": True})

    @routes.get(ROOT)
    @routes.get(ROOT + "/versions/{version}")
    async def model(name: str, version: str | None = None) -> Response:
        return answer(describe(_named(service, name, version)))

    @routes.get(ROOT + "/ready")
    @routes.get(ROOT + "/versions/{version}/ready")
    async def model_ready(name: str, version: str | None = None) -> Response:
        _named(service, name, version)
        return answer({"name": name, "ready": True})

    @routes.post(ROOT + "/infer", openapi_extra=BODY)
    @routes.post(ROOT + "/versions/{version}/infer", openapi_extra=BODY)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        started, champion = time.perf_counter(), _named(service, name, version)
        if "inference-header-content-length" in request.headers:
            raise Refused(
                400,
                "binary tensors are not supported: send binary_data=False",
                [("inputs", "JSON data")],
            )

        # The usual client names no content type.
        return await service.work(
            request, lambda body: _infer(service, champion, body, started), needs_type=False
        )

    return routes


def _infer(service: Service, champion: Champion, body: dict[str, Any], started: float) -> Response:
    asked = check(InferRequest, body)
    outputs = _outputs(champion.bundle.card)
    wanted = _wanted(asked, list(outputs))
    inputs = tensors(asked.inputs, champion, service.limits.max_instances)
    try:
        scored = champion.predict(inputs)
    except ValueError as error:
        raise Refused(422, f"inputs: {error}", [("inputs", str(error))]) from None
    ids = service.record(champion, scored, inputs_to_instances(inputs, champion.features), started)
    head = {
        "model_name": champion.bundle.card.name,
        "model_version": champion.version,
        "id": asked.id or ids[0],
    }
    return answer({**head, "outputs": [_output(one, outputs[one], scored, ids) for one in wanted]})


def _outputs(card: Card) -> dict[str, str]:
    """Datatypes of the outputs by name."""
    return VALUES if card.kind == "regression" else CLASSES


def describe(champion: Champion) -> dict[str, Any]:
    """Model metadata: names, datatypes and shapes of inputs and outputs."""
    card = champion.bundle.card
    shapes = {
        "raw": card.outputs["raw"].shape,
        "probabilities": [-1, len(card.labels)],
        "interval": [-1, 2],
    }
    return {
        "name": card.name,
        "versions": [champion.version],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": name, "datatype": "FP32", "shape": tensor.shape}
            for name, tensor in card.inputs.items()
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": shapes.get(name, [-1])}
            for name, datatype in _outputs(card).items()
        ],
    }


def tensors(given: list[Tensor], champion: Champion, most: int) -> Inputs:
    """Model inputs by name, each float32 with the same first dimension of 1 to `most` rows."""
    expected = champion.bundle.card.inputs
    names = [tensor.name for tensor in given]
    if sorted(names) != sorted(expected):
        rule = f"must name each of {sorted(expected)} once"
        raise Refused(422, f"inputs: {rule}", [("inputs", rule)])
    inputs = {}
    for i, tensor in enumerate(given):
        inputs[tensor.name] = _array(tensor, expected[tensor.name].shape, f"inputs[{i}]", most)
    if len({len(array) for array in inputs.values()}) != 1:
        raise Refused(
            422,
            "inputs: the first dimension must be the same for all",
            [("inputs", "one number of rows")],
        )
    return inputs


def _array(tensor: Tensor, expected: list[int], field: str, most: int) -> NDArray[np.float32]:
    def refuse(part: str, rule: str) -> Refused:
        return Refused(422, f"{field}.{part}: {rule}", [(f"{field}.{part}", rule)])

    if tensor.datatype != "FP32":
        raise refuse("datatype", "must be FP32")
    fits = len(tensor.shape) == len(expected) and all(
        e in (-1, s) for s, e in zip(tensor.shape, expected, strict=True)
    )
    if not fits or not all(1 <= size <= 2**31 for size in tensor.shape):
        raise refuse("shape", f"must be {expected}, where -1 is any size from 1")
    if tensor.shape[0] > most:
        raise refuse("shape", f"at most {most} rows at a time")
    flat = tensor.data
    nested = bool(flat) and isinstance(flat[0], list)
    for size in tensor.shape[1:] if nested else []:
        if not all(isinstance(part, list) and len(part) == size for part in flat):
            raise refuse("data", f"nested lists must have the shape {tensor.shape}")
        flat = [value for part in flat for value in part]
    if len(flat) != math.prod(tensor.shape):
        raise refuse(
            "data",
            f"must hold {math.prod(tensor.shape)} numbers for shape {tensor.shape}, got {len(flat)}",
        )
    if not all(type(value) in (int, float) for value in flat):  # not isinstance: true is an int
        raise refuse("data", "must be numbers, flat or nested as the shape says")
    if not all(abs(value) <= FLOAT32_MAX for value in flat):
        raise refuse("data", "must be finite in FP32")
    return np.asarray(flat, dtype=np.float32).reshape(tensor.shape)


def _wanted(asked: InferRequest, known: list[str]) -> list[str]:
    names = [output.name for output in asked.outputs or []] or known
    for i, name in enumerate(names):
        if name not in known:
            rule = f"must be one of {known}"
            raise Refused(422, f"outputs[{i}].name: {rule}", [(f"outputs[{i}].name", rule)])
    return names


def _output(name: str, datatype: str, scored: Scored, ids: list[str]) -> dict[str, Any]:
    answers, arrays = (
        scored.answers,
        {"raw": scored.outputs["raw"], "prediction_id": np.asarray(ids)},
    )
    if isinstance(answers, Estimates):
        arrays |= {"value": answers.value, "interval": answers.intervals}
    else:
        arrays |= {"probabilities": answers.probabilities}
    array = arrays[name]
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }


def _named(service: Service, name: str, version: str | None) -> Champion:
    champion = service.champion()
    if name != champion.bundle.card.name or version not in (None, champion.version):
        known = f"{champion.bundle.card.name} version {champion.version}"
        raise Refused(
            404, f"no such model here: this server has {known}", [("name", f"must be {known}")]
        )
    return champion

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

from ..task.features import inputs_to_instances
from .predictor import Champion, Inputs
from .protocol import Message, Refused, answer, check, refuse
from .service import Service

ROOT = "/v2/models/{name}"
FLOAT32_MAX = float(np.finfo(np.float32).max)
Parameters = Annotated[dict[str, Any], Field(default_factory=dict)]


class Tensor(Message):
    name: str
    shape: Annotated[list[int], Field(min_length=1, max_length=8)]
    datatype: str
    parameters: Parameters
    data: list[Any]


class Wanted(Message):
    name: str
    parameters: Parameters


class InferRequest(Message):
    id: str | None = None
    parameters: Parameters
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
        name = service.champion().bundle.card.name
        return answer({"name": name, "version": "2", "extensions": []})

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
            error = "binary tensors are not supported: send binary_data=False"
            raise Refused(400, error, [("inputs", "JSON data")])

        # The usual client names no content type.
        return await service.work(
            request, lambda body: _infer(service, champion, body, started), needs_type=False
        )

    return routes


def _infer(service: Service, champion: Champion, body: dict[str, Any], started: float) -> Response:
    asked = check(InferRequest, body)
    available = [output["name"] for output in describe(champion)["outputs"]]
    names = [output.name for output in asked.outputs or []] or available
    for i, name in enumerate(names):
        if name not in available:
            raise refuse(f"outputs[{i}].name", f"must be one of {available}")
    inputs = tensors(asked.inputs, champion, service.limits.max_instances)
    try:
        scored = champion.predict(inputs)
    except ValueError as error:
        raise refuse("inputs", str(error)) from None
    ids = service.record(champion, scored, inputs_to_instances(inputs, champion.features), started)
    arrays, outputs = _arrays(champion, scored.outputs["raw"], ids), []
    for name in names:
        outputs.append({**_tensor(name, arrays[name]), "data": arrays[name].ravel().tolist()})
    head = {"model_name": champion.bundle.card.name, "model_version": champion.version}
    return answer({**head, "id": asked.id or ids[0], "outputs": outputs})


def _arrays(champion: Champion, raw: NDArray[np.float32], ids: list[str]) -> Inputs:
    """Outputs by name, each [n, ...]."""
    answers = champion.bundle.kind.tensors(champion.bundle.decide(raw))
    return {"raw": raw, **answers, "prediction_id": np.array(ids, np.str_)}


def _tensor(name: str, array: NDArray[Any]) -> dict[str, Any]:
    datatype = "BYTES" if array.dtype.kind == "U" else f"FP{8 * array.dtype.itemsize}"
    return {"name": name, "datatype": datatype, "shape": list(array.shape)}


def describe(champion: Champion) -> dict[str, Any]:
    """Model metadata: names, datatypes and shapes of inputs and outputs; -1 is any size."""
    card = champion.bundle.card
    arrays = _arrays(champion, np.zeros((0, *card.outputs["raw"].shape[1:]), np.float32), [])
    outputs = [_tensor(name, array) for name, array in arrays.items()]
    inputs = [
        {"name": name, "datatype": "FP32", "shape": tensor.shape}
        for name, tensor in card.inputs.items()
    ]
    for output in outputs:
        output["shape"][0] = -1
    versions, platform = [champion.version], "onnxruntime_onnx"
    return {
        "name": card.name,
        "versions": versions,
        "platform": platform,
        "inputs": inputs,
        "outputs": outputs,
    }


def tensors(given: list[Tensor], champion: Champion, most: int) -> Inputs:
    """Model inputs by name, each float32 with the same first dimension of 1 to `most` rows."""
    expected = champion.bundle.card.inputs
    if sorted(tensor.name for tensor in given) != sorted(expected):
        raise refuse("inputs", f"must name each of {sorted(expected)} once")
    inputs = {}
    for i, tensor in enumerate(given):
        inputs[tensor.name] = _array(tensor, expected[tensor.name].shape, f"inputs[{i}]", most)
    if len({len(array) for array in inputs.values()}) != 1:
        raise refuse("inputs", "must have one number of rows")
    return inputs


def _array(tensor: Tensor, expected: list[int], field: str, most: int) -> NDArray[np.float32]:
    if tensor.datatype != "FP32":
        raise refuse(f"{field}.datatype", "must be FP32")
    sizes = tuple(tensor.shape)
    if [*sizes[1:]] != expected[1:] or not 1 <= sizes[0] <= most:
        raise refuse(f"{field}.shape", f"must be {expected}, where -1 is any size from 1 to {most}")
    try:
        values = np.asarray(tensor.data, dtype=object)
    except ValueError:  # nested lists of different lengths
        values = np.empty(0, dtype=object)
    if values.shape not in (sizes, (math.prod(sizes),)):
        rule = f"must hold {math.prod(sizes)} numbers, flat or nested as the shape {sizes} says"
        raise refuse(f"{field}.data", rule)
    if not {*map(type, values.flat)} <= {int, float}:  # not isinstance: true is an int
        raise refuse(f"{field}.data", "must be numbers")
    if not (np.abs(values) <= FLOAT32_MAX).all():
        raise refuse(f"{field}.data", "must be finite in FP32")
    return values.astype(np.float32).reshape(sizes)


def _named(service: Service, name: str, version: str | None) -> Champion:
    champion = service.champion()
    if name != champion.bundle.card.name or version not in (None, champion.version):
        model = f"{champion.bundle.card.name} version {champion.version}"
        raise Refused(404, "no such model here", [("name", f"must be {model}")])
    return champion

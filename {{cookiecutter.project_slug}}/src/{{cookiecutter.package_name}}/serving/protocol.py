"""What goes over the wire: strict JSON in, JSON out, and one form of refusal that names the field
and the rule.
"""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.requests import ClientDisconnect

from ..task.features import Features, Instance, check_instance

MAX_DETAILS = 10
DRAIN_SECONDS = 5.0
Model = TypeVar("Model", bound=BaseModel)


class Message(BaseModel):
    """Strict: "1" is no number, and an unknown field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid")


class PredictRequest(Message):
    instances: Annotated[list[Instance], Field(min_length=1)]


class FeedbackRequest(Message):
    """The true label of an earlier prediction: a class, or a number where values are predicted."""

    prediction_id: str
    label: Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]})]


class ClassPrediction(Message):
    """`set` holds the labels that the conformal prediction set covers; `abstain` says that a person
    should decide.
    """

    prediction_id: str
    label: str
    confidence: float
    probabilities: dict[str, float]
    abstain: bool
    set: list[str]


class ValuePrediction(Message):
    """`interval` is the conformal one, lowest and highest value; `deviation` the predicted standard
    deviation.
    """

    prediction_id: str
    value: float
    interval: Annotated[list[float], Field(min_length=2, max_length=2)]
    deviation: float
    abstain: bool


class ModelName(Message):
    version: str
    identity: str


class PredictAnswer(Message):
    predictions: list[ClassPrediction] | list[ValuePrediction]
    model: ModelName


class Detail(Message):
    field: str
    rule: str


class ErrorAnswer(Message):
    error: str
    details: list[Detail] = []


class Refused(Exception):
    """An answer of class 4xx or 503; `details` are (field, rule) pairs."""

    def __init__(
        self,
        status: int,
        error: str,
        details: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.headers = status, error, headers
        self.details = [{"field": field, "rule": rule} for field, rule in details]


def refuse(field: str, rule: str, status: int = 422) -> Refused:
    """A refusal for one field."""
    return Refused(status, f"{field}: {rule}", [(field, rule)])


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in plain ASCII: what a client sent and we quote may not be encodable otherwise."""
    return Response(
        json.dumps(content, allow_nan=False), status, headers, media_type="application/json"
    )


def refusal(refused: Refused) -> Response:
    return answer(
        {"error": refused.error, "details": refused.details}, refused.status, refused.headers
    )


async def read(request: Request, max_bytes: int, needs_type: bool) -> bytes:
    """The body. Refuses other content types than JSON and more than max_bytes, whether announced or
    not.
    """
    content_type = request.headers.get("content-type", "" if needs_type else "application/json")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        rule = "must be application/json"
        raise Refused(415, f"the content-type {rule}", [("content-type", rule)])
    if request.headers.get("content-encoding", "identity") != "identity":
        rule = "must be absent"
        raise Refused(415, "the body must not be compressed", [("content-encoding", rule)])
    rule = f"at most {max_bytes} bytes"
    too_large = Refused(413, f"the body is larger than {max_bytes} bytes", [("body", rule)])
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > max_bytes:
        await _drain(request)
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                await _drain(request)
                raise too_large
    except ClientDisconnect:
        raise Refused(400, "the body is incomplete") from None
    return bytes(body)


async def _drain(request: Request) -> None:
    """Reads on, for a while: a client that is still sending sees a closed connection, no answer."""
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(DRAIN_SECONDS):
            while (await request.receive()).get("more_body"):
                pass


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object whose numbers are all finite."""
    try:
        content = json.loads(body, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise Refused(400, "the JSON is nested too deeply", [("body", "less nesting")]) from None
    except ValueError as error:
        rule = "must be valid JSON with finite numbers"
        raise Refused(400, f"the body is not valid JSON: {error}", [("body", rule)]) from None
    if not isinstance(content, dict):
        raise Refused(422, "the body must be a JSON object", [("body", "must be a JSON object")])
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return value


def check(model: type[Model], content: Any) -> Model:
    """The validated message. Refuses with the first ten wrong fields and the rule each broke."""
    try:
        return model.model_validate(content)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
    raise _refuse_all([(e["loc"], e["msg"].removeprefix("Value error, ")) for e in errors])


def _refuse_all(broken: Sequence[tuple[Sequence[int | str], str]]) -> Refused:
    """For places such as ("instances", 0, "age") and their rules."""
    details = [(_field(place), rule) for place, rule in broken[:MAX_DETAILS]]
    more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
    return Refused(422, f"{details[0][0]}: {details[0][1]}{more}", details)


def _field(place: Sequence[int | str]) -> str:
    """("instances", 0, "age") -> "instances[0].age"; a client's own long name is cut."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:80]}" for part in place)
    return text.removeprefix(".") or "body"


def instances(content: dict[str, Any], features: Features, most: int) -> list[Instance]:
    """The checked items of a /predict request; counts them before it looks into them."""
    items = content.get("instances")
    if isinstance(items, list) and len(items) > most:
        error = f"instances: at most {most} at a time, got {len(items)}"
        raise Refused(422, error, [("instances", f"at most {most} items")])
    parsed, broken = check(PredictRequest, content).instances, []
    for i, instance in enumerate(parsed):
        try:
            check_instance(instance, features)
        except ValueError as error:
            field, _, rule = str(error).partition(": ")
            broken.append((("instances", i, field), rule))
    if broken:
        raise _refuse_all(broken)
    return parsed

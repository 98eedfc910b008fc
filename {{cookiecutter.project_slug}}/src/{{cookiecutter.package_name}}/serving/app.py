"""The HTTP application: predictions, feedback, health, metrics and the page. `python -m <package>
serve` runs it.
"""

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..modeling import kinds
from ..settings import Settings
from ..task.features import instance_schema
from . import v2
from .predictor import Champion
from .protocol import (
    ErrorAnswer,
    FeedbackRequest,
    PredictAnswer,
    PredictRequest,
    Refused,
    answer,
    check,
    instances,
    refusal,
    refuse,
)
from .service import RETRY, Service
from .store import StoreBusy

DESCRIBED = {"name", "kind", "labels", "predicts", "unit", "features"}
PAGE = Path(__file__).parents[1] / "task" / "page.html"
ERRORS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (400, 401, 404, 413, 415, 422, 503)
}


def create(settings: Settings) -> FastAPI:
    """The application. It loads the champion when it starts, and answers 503 until there is one."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # The usual documentation pages load scripts from elsewhere: only the schema itself is offered.
    app = FastAPI(
        title=settings.project.title,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    page = PAGE.read_text(encoding="utf-8")
    _predict(app, service)
    _feedback(app, service)
    _operations(app, service, page)
    app.include_router(v2.router(service))
    app.add_exception_handler(Refused, lambda _, error: refusal(error))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Edge, service=service, headers=security_headers(page))
    _describe_bodies(app, service)
    return app


def _predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict",
        responses={200: {"model": PredictAnswer}, **ERRORS},
        openapi_extra=_body(PredictRequest),
    )
    async def predict(request: Request) -> Response:
        """Predictions on one or more items, each under an id that /feedback takes."""
        champion, started = service.champion(), time.perf_counter()

        def job(content: dict[str, Any]) -> Response:
            checked = instances(content, champion.features, service.limits.max_instances)
            try:
                scored = champion.predict(champion.decode(checked))
            except ValueError as error:
                raise refuse("instances", str(error)) from None
            ids = service.record(champion, scored, content["instances"], started)
            items = champion.encode(scored.answers)
            pairs = zip(ids, items, strict=True)
            predictions = [{"prediction_id": id_, **item} for id_, item in pairs]
            return answer({"predictions": predictions, "model": _model(champion)})

        return await service.work(request, job)


def _feedback(app: FastAPI, service: Service) -> None:
    @app.post("/feedback", responses=ERRORS, openapi_extra=_body(FeedbackRequest))
    async def feedback(request: Request) -> Response:
        """The true label of an earlier prediction; a second one replaces the first."""
        champion = service.champion()

        def job(content: dict[str, Any]) -> Response:
            given = check(FeedbackRequest, content)
            id_ = given.prediction_id
            try:
                model = service.model(id_, champion) if id_.isascii() else None
                if model is None:
                    rule = [("prediction_id", "must be one that was given")]
                    raise Refused(404, "prediction_id: no such prediction", rule)
                label = kinds.of(model["kind"]).check_label(given.label, model["labels"])
                service.store.feedback(id_, label)
            except StoreBusy:
                raise Refused(503, "the store is busy: try again", headers=RETRY) from None
            except ValueError as error:
                raise refuse("label", str(error)) from None
            service.metrics.feedback.labels(label if isinstance(label, str) else "value").inc()
            return answer({"stored": True})

        return await service.work(request, job)


def _operations(app: FastAPI, service: Service, page: str) -> None:
    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return HTMLResponse(page)

    @app.get("/model", responses=ERRORS)
    async def model() -> Response:
        """What the model is, as its bundle says: the page shows it."""
        champion = service.champion()
        card = champion.bundle.card.model_dump(include=DESCRIBED)
        return answer({"title": app.title, **card, "model": _model(champion)})

    @app.get("/healthz")
    async def healthz() -> Response:
        """The process answers."""
        return answer({"status": "ok"})

    @app.get("/readyz", responses={503: {"model": ErrorAnswer}})
    async def readyz() -> Response:
        """A model is loaded."""
        return answer({"status": "ready", "model": _model(service.champion())})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(
            service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )


def _model(champion: Champion) -> dict[str, str]:
    return {"version": champion.version, "identity": champion.bundle.identity}


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    field = "method" if error.status_code == 405 else "path"
    details = [{"field": field, "rule": "must be one that /openapi.json describes"}]
    return answer(
        {"error": str(error.detail), "details": details}, error.status_code, error.headers
    )


def _body(model: type) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _describe_bodies(app: FastAPI, service: Service) -> None:
    """Adds the request models to the schema: bodies are read by our own code, which FastAPI cannot
    see.

    What an item holds is known in full once there is a model.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        schemas = schema["components"]["schemas"]
        for model in (PredictRequest, FeedbackRequest, v2.InferRequest):
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(described.pop("$defs", {}))
            schemas[model.__name__] = described
        if service.predictor.champion:
            schemas["Instance"] = instance_schema(service.predictor.champion.features)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def security_headers(page: str) -> list[tuple[bytes, bytes]]:
    """Headers of every answer; the page's own scripts and styles are allowed by their hashes,
    nothing else is.
    """
    policy = (
        f"default-src 'none'; script-src {_hashes(page, 'script')}; "
        f"style-src {_hashes(page, 'style')}; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _hashes(page: str, tag: str) -> str:
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in texts]
    return " ".join(f"'sha256-{digest.decode()}'" for digest in digests) or "'none'"


class Edge:
    """Around everything: counts and times requests, adds the security headers, turns a crash into a
    plain 500.
    """

    def __init__(self, app: ASGIApp, service: Service, headers: list[tuple[bytes, bytes]]) -> None:
        self.app, self.service, self.headers = app, service, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def finish(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *self.headers]}
            await send(message)

        try:
            await self.app(scope, receive, finish)
        except Exception:  # a bug: the client gets an answer, the log gets the traceback
            self.service.log.exception("%s failed", scope["path"])
            if not status:
                failed = answer({"error": "internal error", "details": []}, 500)
                await failed(scope, receive, finish)
        # The route's template, so that clients cannot invent label values.
        path = getattr(scope.get("route"), "path", "other")
        self.service.metrics.answered(path, status, time.perf_counter() - started)

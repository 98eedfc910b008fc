"""A stand-in for a project's server: a task's page beside answers that a test makes up."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent / "{{cookiecutter.project_slug}}"
Predict = Callable[[list[Any]], tuple[int, Any]]  # the items of a request -> status and body
MODEL = {"version": "3", "identity": "0"}
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def classes(labels: list[str], shares: list[float]) -> dict[str, Any]:
    """A prediction; the likeliest class is the answer, those over a tenth are the set."""
    p = dict(zip(labels, shares, strict=True))
    best = max(p, key=p.__getitem__)
    likely = [label for label in labels if p[label] > 0.1]
    answer = {"label": best, "confidence": p[best], "probabilities": p, "set": likely}
    return {"prediction_id": "1", **answer, "abstain": p[best] < 0.6}


def value(number: float) -> dict[str, Any]:
    answer = {"value": number, "interval": [number - 10, number + 10], "deviation": 5.0}
    return {"prediction_id": "1", **answer, "abstain": False}


def ok(predictions: list[Any]) -> tuple[int, Any]:
    return 200, {"predictions": predictions, "model": MODEL}


def refused(error: str, status: int = 422) -> tuple[int, Any]:
    return status, {"error": error, "details": []}


@contextlib.contextmanager
def served(task: str, about: dict[str, Any], predict: Predict, instance: Any = None) -> Iterator[str]:
    """The address of the page of a task whose model is as `about` and the schema of an item say."""
    page = next((ROOT / "tasks" / task / "src").glob("*/task/page.html"))
    described = {"title": "My Model", "predicts": "", "unit": "", "labels": [], "features": {}}
    answers = {
        "/model": {**described, "model": MODEL, **about},
        "/openapi.json": {"components": {"schemas": {"Instance": instance}}},
    }

    class Server(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path == "/":
                self.answer(200, "text/html; charset=utf-8", page.read_bytes())
            else:
                self.answer(200, "application/json", json.dumps(answers[self.path]).encode())

        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = (200, {"stored": True}) if self.path == "/feedback" else predict(content["instances"])
            kind = "text/html" if isinstance(body, str) else "application/json"
            self.answer(status, kind, body.encode() if isinstance(body, str) else json.dumps(body).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def numbers(**ranges: tuple[float, float]) -> dict[str, Any]:
    return {name: {"type": "number", "minimum": low, "maximum": high} for name, (low, high) in ranges.items()}


def schema(
    properties: dict[str, Any], optional: tuple[str, ...] = (), examples: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """Of an item, as the server describes it."""
    needed = [name for name in properties if name not in optional]
    may = {name: {"anyOf": [rule, {"type": "null"}]} if name in optional else rule for name, rule in properties.items()}
    return {"properties": may, "required": needed, "examples": list(examples)}

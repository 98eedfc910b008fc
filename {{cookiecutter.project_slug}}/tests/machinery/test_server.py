"""The server where a client, a bundle or the code itself misbehaves."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import served

from {{cookiecutter.package_name}}.packaging.bundle import Bundle, seal
from {{cookiecutter.package_name}}.serving.predictor import Champion, load
from {{cookiecutter.package_name}}.settings import Settings

client, kind, live, raw_settings = served.client, served.kind, served.live, served.raw_settings
release, rows, serve, settings = served.release, served.rows, served.serve, served.settings
table = served.table
JSON = {"Content-Type": "application/json"}


@pytest.mark.row("S7", "S8")
def test_a_large_body_is_refused_without_its_length(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(400):
            yield b" " * 50_000

    assert client.post("/predict", content=pieces(), headers=JSON).status_code == 413


def test_a_bundle_that_fails_its_own_examples_is_not_loaded(live: str, settings: Settings) -> None:
    folder = settings.paths.live / "1"
    examples = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    examples["raw"] = [[1.01 * number + 0.01 for number in row] for row in examples["raw"]]
    (folder / "examples.json").write_text(json.dumps(examples), encoding="utf-8")
    seal(folder)
    with pytest.raises(ValueError, match="its own examples"):
        load(Bundle.load(folder), "1")


@pytest.mark.row("S7")
def test_a_bug_is_a_plain_500(
    client: httpx.Client, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Champion, inputs: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Champion, "predict", fail)
    response = client.post("/predict", json={"instances": rows.items[:1]})
    assert response.status_code == 500 and "secret" not in response.text
    assert response.headers["x-frame-options"] == "DENY"

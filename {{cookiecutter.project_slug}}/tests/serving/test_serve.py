"""The verb `serve` as a real process on a real port, and `replay` against it."""

import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Start, replayed

from {{cookiecutter.package_name}}.monitoring.quality import measure
from {{cookiecutter.package_name}}.serving.store import models, recent
from {{cookiecutter.package_name}}.settings import Settings

# What training needs and serving must not: none of it is in the image.
FORBIDDEN = {
    "torch",
    "lightning",
    "mlflow",
    "dvc",
    "pandas",
    "sklearn",
    "hydra",
    "omegaconf",
    "matplotlib",
    "onnx",
}


def post(url: str, path: str, content: Any) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.request("POST", path, json.dumps(content), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.load(response)
    connection.close()
    assert response.status == 200 and response.getheader("server") is None
    return answer


@pytest.mark.row("S1", "P4")
def test_serves_without_the_training_stack_and_flushes(
    start: Start, live: str, settings: Settings, rows: Any, project: Path
) -> None:
    process = start()
    assert process.url is not None, process.end()
    answer = post(process.url, "/predict", {"instances": rows.items[:50]})
    assert answer["model"]["identity"] == live
    code, out, err = process.end()
    assert code == 0, err
    assert "Traceback" not in err
    assert len(recent(settings.paths.store, 100)) == 50
    loaded = {name.partition(".")[0] for name in out.partition("MODULES")[2].split()}
    assert "onnxruntime" in loaded and not loaded & FORBIDDEN
    assert not (
        project / "home"
    ).exists()  # where ONNX Runtime keeps the identity under which it reports its use


def test_no_model_and_a_taken_port_are_one_line_each(
    start: Start, release: Callable[..., str]
) -> None:
    code, _, err = start().end()
    assert code == 2 and "run `make pipeline` first" in err and len(err.splitlines()) == 1
    release("1")
    first = start()
    assert first.url is not None
    port = first.url.rpartition(":")[2]
    code, _, err = start(f"serving.port={port}").end()
    assert code == 2 and "serving.port=" in err and len(err.splitlines()) == 1


@pytest.mark.row("S10")
def test_replay_asks_where_the_settings_say_and_through_no_proxy(
    start: Start,
    live: str,
    settings: Settings,
    rows: Any,
    data: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody answers
    for host, reached in {"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.items():
        process = start(f"serving.host={host}")
        assert process.url is not None, process.end()
        address, _, port = process.url.rpartition(":")
        assert address == f"http://{reached}"
        post(f"http://127.0.0.1:{port}", "/predict", {"instances": [rows.items[0]]})
        serving = settings.changed("serving", host=host, port=int(port))
        assert replayed(serving, "", "--rows", "10") == 0
        process.end()
    with pytest.raises(ValueError, match=r"no answer from http://[^ ]*:9 .* another terminal"):
        replayed(settings.changed("serving", port=9), "")


@pytest.mark.row("S10")
def test_replay_compares_scores_and_reports(
    start: Start, live: str, settings: Settings, data: None
) -> None:
    process = start()
    assert process.url is not None
    assert replayed(settings, process.url, "--rows", "60", "--feedback") == 0
    report = json.loads((settings.paths.reports / "replay.json").read_text(encoding="utf-8"))
    assert (
        report["rows"] == 60 and report["different"] == 0 and report["provenance"]["bundle"] == live
    )
    process.end()
    stored = recent(settings.paths.store, 1000)
    labelled = recent(settings.paths.store, 1000, labelled=True)
    assert len(stored) == 68 and len(labelled) == 60  # the bundle's examples come first
    model = models(settings.paths.store)[live]
    assert report["right"] == pytest.approx(1 - measure(labelled, model, 0.9)["errors"] / 60)
    assert 0.3 < report["right"] <= 1

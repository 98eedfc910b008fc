"""The verbs `serve` and `replay` where something ends or goes wrong."""

import http.client
import json
import os
import signal
import time
from typing import Any

import pytest
import served
from served import Start, replayed

from {{cookiecutter.package_name}}.serving import replay
from {{cookiecutter.package_name}}.serving.predictor import Champion
from {{cookiecutter.package_name}}.settings import Settings
from {{cookiecutter.package_name}}.task.behaviour import declare

data, kind, live, project = served.data, served.kind, served.live, served.project
raw_settings, release, rows = served.raw_settings, served.release, served.rows
settings, start, table = served.settings, served.start, served.table


def test_small_answers_do_not_wait_for_acknowledgements(start: Start, live: str) -> None:
    process = start()
    assert process.url is not None
    connection = http.client.HTTPConnection(process.url.removeprefix("http://"), timeout=30)
    times = []
    for _ in range(30):
        started = time.perf_counter()
        connection.request("GET", "/healthz")
        connection.getresponse().read()
        times.append(time.perf_counter() - started)
    connection.close()
    assert sorted(times)[10] < 0.03  # waiting costs 0.04 s each


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send one process an interrupt")
def test_an_interrupt_ends_it_cleanly(start: Start, live: str) -> None:
    process = start()
    assert process.url is not None
    code, _, err = process.end(signal.SIGINT)
    assert code == 0 and "Traceback" not in err and "KeyboardInterrupt" not in err


@pytest.mark.row("S10")
def test_replay_notices_other_answers_and_a_dead_server(
    start: Start, live: str, settings: Settings, data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, own = start(), Champion.encode
    assert process.url is not None
    with monkeypatch.context() as patch:
        patch.setattr(
            Champion,
            "encode",
            lambda self, answers: [{**a, "abstain": None} for a in own(self, answers)],
        )
        assert replayed(settings, process.url, "--rows", "10") == 1
    process.process.send_signal(signal.SIGKILL)
    with pytest.raises(ValueError, match="make serve"):
        process.process.wait(30)
        replayed(settings, process.url)


@pytest.mark.row("S10")
def test_replay_asks_for_what_it_needs(live: str, settings: Settings, data: None) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        replayed(settings, "http://127.0.0.1:9", "--split", "no")
    with pytest.raises(ValueError, match="--rows"):
        replayed(settings, "http://127.0.0.1:9", "--rows", "0")
    with pytest.raises(ValueError, match="NAME:SEVERITY"):
        replayed(settings, "http://127.0.0.1:9", "--corrupt", "nothing:9")


@pytest.mark.row("S10")
def test_replay_corrupts_and_leaves_out_what_becomes_invalid(
    start: Start, live: str, settings: Settings, data: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start()
    assert process.url is not None
    name, seen = next(iter(declare(settings.data).perturbations)), list[Any]()

    def every_third(instance: Any, features: Any) -> None:
        seen.append(instance)
        if len(seen) % 3 == 0:
            raise ValueError("a field: a rule")

    monkeypatch.setattr(replay, "check_instance", every_third)
    assert replayed(settings, process.url, "--rows", "30", "--corrupt", f"{name}:2") == 0
    report = json.loads((settings.paths.reports / "replay.json").read_text(encoding="utf-8"))
    assert report["left_out"] >= 10 and report["rows"] == 30 - report["left_out"]

"""When the routine retrains, and what each run leaves in the log."""

from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from watched import last_line, run

from {{cookiecutter.package_name}}.monitoring import routine
from {{cookiecutter.package_name}}.settings import Settings

pytestmark = pytest.mark.row("D4", "O7")


def report(verdict: str = "alarm", warnings: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "alarm": verdict == "alarm",
        "reasons": ["it changed"],
        "warnings": list(warnings),
    }


def test_without_an_honest_alarm_nothing_is_trained(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routine, "retrain", lambda *words, **options: pytest.fail("retrained"))
    for found, code, words in (
        (report("no alarm"), 0, "nothing to do"),
        (report("cannot tell"), 4, "cannot tell: it changed"),
        (report(warnings=("a flood",)), 4, "signs of abuse"),
    ):
        monkeypatch.setattr(routine, "monitor", lambda settings, found=found: found)
        assert run(settings) == code
        assert words in last_line()["outcome"]


def test_every_run_is_one_line_and_never_two_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routine, "monitor", lambda settings: report("no alarm"))
    settings.paths.state.mkdir()
    with FileLock(settings.paths.state / "routine.lock"):
        assert run(settings) == 1
    assert "another routine is running" in last_line()["error"]
    assert run(settings) == run(settings) == 0
    line = last_line()
    assert line["scheduled"] == "2030-01-01T04:15:00+00:00"
    assert line["start"] <= line["end"] and line["error"] is None
    assert len(Path("logs/routine.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_no_store_is_one_line(
    settings: Settings, identity: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(settings) == 1
    assert last_line()["error"].startswith("no predictions in store/predictions.db: start `make")
    assert "Traceback" not in capsys.readouterr().err

import json
import logging
from pathlib import Path

import pytest
from harness import Project, module


@pytest.fixture
def fresh(project: Project, request: pytest.FixtureRequest) -> str:
    """A stage name that no other test uses: loggers live as long as the process."""
    return "".join(c for c in request.node.name if c.isalnum())


def lines(name: str) -> list[dict[str, object]]:
    for handler in logging.getLogger(f"{module('logs').__package__}.{name}").handlers:
        handler.close()
    return [json.loads(line) for line in Path(f"logs/{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_stage_logs_its_start_end_and_time(fresh: str, capsys: pytest.CaptureFixture[str]) -> None:
    with module("logs").stage(fresh) as log:
        log.info("%d rows", 3, extra={"fields": {"rows": 3}})
    start, message, end = lines(fresh)
    assert (start["event"], message["rows"], end["outcome"]) == ("start", 3, "ok")
    assert message["severity"] == "INFO" and str(message["time"]).endswith("+00:00")
    assert f"✔ {fresh}" in capsys.readouterr().err


def test_a_failed_stage_logs_its_error(fresh: str) -> None:
    with pytest.raises(ValueError, match="broken"), module("logs").stage(fresh):
        raise ValueError("broken")
    assert lines(fresh)[-1]["outcome"] == "failed" and "broken" in str(lines(fresh)[-1]["error"])

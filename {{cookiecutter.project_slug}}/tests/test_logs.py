import json
import logging
import sqlite3
from contextlib import closing
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
    return [
        json.loads(line)
        for line in Path(f"logs/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_a_stage_logs_its_start_end_time_and_error(
    fresh: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with module("logs").stage(fresh) as log:
        log.info("%d rows", 3, extra={"fields": {"rows": 3}})
    start, message, end = lines(fresh)
    assert (start["event"], message["rows"], end["outcome"]) == ("start", 3, "ok")
    assert message["severity"] == "INFO" and str(message["time"]).endswith("+00:00")
    assert f"✔ {fresh}" in capsys.readouterr().err
    with pytest.raises(ValueError, match="broken"), module("logs").stage(fresh):
        raise ValueError("broken")
    assert lines(fresh)[-1]["outcome"] == "failed" and "broken" in str(lines(fresh)[-1]["error"])


def test_mistakes_are_explained_in_one_line_and_bugs_are_not(tmp_path: Path) -> None:
    explain = module("logs").explain
    (tmp_path / "store.db").write_bytes(b"not a database" * 100)
    with (
        closing(sqlite3.connect(tmp_path / "store.db")) as store,
        pytest.raises(sqlite3.DatabaseError) as damaged,
    ):
        store.execute("SELECT 1 FROM sqlite_master")
    assert "file is not a database" in explain(damaged.value) and "\n" not in explain(damaged.value)
    assert explain(ValueError("write a number")) == "write a number"
    assert explain(FileNotFoundError("no file")) == "no file"
    assert explain(ZeroDivisionError("a bug")) is None
    with pytest.raises(ValueError) as caught:
        module("settings").Rate.model_validate({"max_violations": 2, "tolerance": 0, "typo": 1})
    text = explain(caught.value)
    first, *others = text.split("; ")
    assert first.startswith("max_violations: ") and "typo: " in others[-1] and "\n" not in text
    assert "pydantic" not in text and "input" not in first

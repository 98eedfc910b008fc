"""Logs that people and machines read: one line on the terminal, one JSON object per line in
`logs/<stage>.jsonl`.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from pydantic import ValidationError

LOGS = Path("logs")


class JsonFormatter(logging.Formatter):
    """Time (UTC, ISO 8601), severity, stage and message, then whatever `extra={"fields": {...}}`
    adds.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "severity": record.levelname,
            "stage": record.name.rpartition(".")[2],
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def get(stage: str, folder: Path = LOGS) -> logging.Logger:
    """The logger of a stage, set up on first use; its file rotates at 5 MB and keeps three older
    ones.
    """
    logger = logging.getLogger(f"{__package__}.{stage}")
    if not any(isinstance(handler, RotatingFileHandler) for handler in logger.handlers):
        folder.mkdir(parents=True, exist_ok=True)
        file = RotatingFileHandler(
            folder / f"{stage}.jsonl", maxBytes=5_000_000, backupCount=3, encoding="utf-8"
        )
        file.setFormatter(JsonFormatter())
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(logging.Formatter("  %(message)s"))
        logger.addHandler(file)
        logger.addHandler(terminal)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


# Errors of these libraries tell of a wrong value, a store that is broken or a machine that lacks
# something.
EXPLAINED = (
    "hydra",
    "lightning",
    "mlflow",
    "omegaconf",
    "sqlalchemy",
    "sqlite3",
    "yaml",
    "pyarrow",
)


def explain(error: BaseException) -> str | None:
    """One line for what a user can mend; None for a bug, which keeps its traceback."""
    if (
        isinstance(error, ValueError | OSError)
        or type(error).__module__.partition(".")[0] in EXPLAINED
    ):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, ValidationError):  # whose own text quotes the whole input
            where = [
                (".".join(map(str, e["loc"])) or error.title, e["msg"]) for e in error.errors()
            ]
            lines = [
                f"{field}: {message.removeprefix('Value error, ')}" for field, message in where
            ]
        if type(error).__module__.startswith(("sqlite3", "sqlalchemy")):
            # The store of the predictions or of the tracker; the rest of the message is the query.
            return f"a database is damaged or busy ({lines[0]}): move its file, in store/ or mlflow.db, out of the way"
        return "\n  ".join(lines[:6]) or repr(error)
    return None


@contextmanager
def stage(name: str) -> Iterator[logging.Logger]:
    """Times a stage; its start, end, outcome and error are JSON lines, its time a line on the
    terminal.
    """
    logger, started = get(name), time.perf_counter()
    _write(logger, "start", {"event": "start"})
    try:
        yield logger
    except BaseException as error:
        seconds = round(time.perf_counter() - started, 2)
        _write(
            logger,
            f"failed: {error}",
            {"event": "end", "outcome": "failed", "seconds": seconds, "error": repr(error)},
        )
        raise
    seconds = round(time.perf_counter() - started, 2)
    _write(logger, "done", {"event": "end", "outcome": "ok", "seconds": seconds})
    print(f"✔ {name} {seconds:.1f} s", file=sys.stderr)


def _write(logger: logging.Logger, message: str, fields: dict[str, object]) -> None:
    """To the file alone: the terminal has its own line for it."""
    record = logger.makeRecord(
        logger.name, logging.INFO, __file__, 0, message, (), None, extra={"fields": fields}
    )
    for handler in logger.handlers:
        if isinstance(handler, RotatingFileHandler):
            handler.handle(record)

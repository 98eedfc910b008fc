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

from .settings import problems

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
        terminal.setLevel(logging.INFO)  # start and end are for the file alone
        logger.addHandler(file)
        logger.addHandler(terminal)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    return logger


# Errors of these libraries tell of a wrong value, a store that is broken or a machine that lacks
# something.
EXPLAINED = [
    "dvc",
    "hydra",
    "lightning",
    "mlflow",
    "omegaconf",
    "pyarrow",
    "sqlalchemy",
    "sqlite3",
    "yaml",
]


def explain(error: BaseException) -> str | None:
    """One line for what a user can mend; None for a bug, which keeps its traceback."""
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and f"{error.name}".startswith(f"{__package__}."):
        return f"{error.name} is in the profile `full` alone"
    if not isinstance(error, ValueError | OSError) and library not in EXPLAINED:
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ValidationError):
        lines = problems(error)
    if library in ("sqlite3", "sqlalchemy"):
        # The store of the predictions or of the tracker; the rest of the message is the query.
        remedy = "move its file, in store/ or mlflow.db, out of the way"
        return f"a database is damaged or busy ({lines[0]}): {remedy}"
    return "\n  ".join(lines[:6]) or repr(error)


@contextmanager
def stage(name: str) -> Iterator[logging.Logger]:
    """Times a stage; its start, end, outcome and error are JSON lines, its time a line on the
    terminal.
    """
    logger, started = get(name), time.perf_counter()
    logger.debug("start", extra={"fields": {"event": "start"}})
    end = {"event": "end", "outcome": "ok"}
    try:
        yield logger
    except BaseException as error:
        end |= {"outcome": "failed", "error": repr(error)}
        raise
    finally:
        seconds = time.perf_counter() - started
        logger.debug(end["outcome"], extra={"fields": {**end, "seconds": round(seconds, 2)}})
    print(f"✔ {name} {seconds:.1f} s", file=sys.stderr)

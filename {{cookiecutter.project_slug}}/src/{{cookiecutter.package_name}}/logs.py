"""Logs that people and machines read: one line on the terminal, one JSON object per line in
`logs/<stage>.jsonl`.
"""

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from .settings import problems

T = TypeVar("T")
TOLD_SECONDS = 5.0  # without a line a person wonders
LOGS = Path("logs")
TASK = Path(__file__).parent / "task"


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


def origin(error: BaseException) -> tuple[str, BaseException] | None:
    """File and line of the owner's code that raised an error, or that called what did; and that
    error, which a library may have made another of.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(TASK):
            return f"{path.relative_to(TASK.parents[2])}, line {frame.lineno}", error
    return origin(error.__cause__) if error.__cause__ else None


def explain(error: BaseException) -> str | None:
    """One line for what a user can mend; None for a bug, which keeps its traceback. An error in the
    owner's code says where.
    """
    owners = origin(error)
    if owners is not None and not isinstance(error, ValidationError):
        place, error = owners
        text = " ".join(str(error).split())
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        return f"{place}: {kind}{text} (`--debug` prints the traceback, logs/ has it)"
    library = type(error).__module__.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and f"{error.name}".startswith(f"{__package__}."):
        return f"{error.name} is in the profile `full` alone"
    if not isinstance(error, ValueError | OSError) and library not in EXPLAINED:
        return None
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ValidationError):
        lines = problems(error)
    if library in ("mlflow", "requests") and re.search(
        "API request|ConnectionPool|Connection aborted", lines[0]
    ):
        return f"a server stopped answering: try again when it does ({lines[0][:200]})"
    if library in ("sqlite3", "sqlalchemy"):
        # The store of the predictions or of the tracker; the rest of the message is the query.
        remedy = "move its file, in store/ or mlflow.db, out of the way"
        return f"a database is damaged or busy ({lines[0]}): {remedy}"
    told = [line for line in lines if not line.startswith("See http")][:6]
    return "; ".join(told) or repr(error)


def progress(items: Iterable[T], words: str) -> Iterator[T]:
    """The items; every few seconds a line says how many there were: `words` has a %d."""
    told = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            print(f"  {words % number}", file=sys.stderr)


class Worst(logging.Handler):
    """Remembers whether an error was logged."""

    failed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.failed |= record.levelno >= logging.ERROR


@contextmanager
def stage(name: str) -> Iterator[logging.Logger]:
    """Times a stage; its start, end, outcome and error are JSON lines, its time a line on the
    terminal. It failed if it raised or logged an error.
    """
    logger, started, worst = get(name), time.perf_counter(), Worst()
    logger.debug("start", extra={"fields": {"event": "start"}})
    logger.addHandler(worst)
    end: dict[str, Any] = {"event": "end"}
    try:
        yield logger
    except BaseException as error:
        worst.failed = True
        end |= {"error": repr(error), "traceback": traceback.format_exc()}
        raise
    finally:
        logger.removeHandler(worst)
        seconds, outcome = time.perf_counter() - started, "failed" if worst.failed else "ok"
        fields = {**end, "outcome": outcome, "seconds": round(seconds, 2)}
        logger.debug(outcome, extra={"fields": fields})
        print(f"{'✗' if worst.failed else '✔'} {name} {seconds:.1f} s", file=sys.stderr)

"""The prediction store: every answer and the feedback on it, in one SQLite file that other
processes read meanwhile.

Answering never waits for the disk: records go to a bounded queue, and one thread commits what has
gathered there, every 20 ms. So a killed process loses 20 ms of answers, and one that is asked to
end loses none.
"""

import atexit
import json
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypedDict

from ..packaging.bundle import Card
from ..settings import Kind

MAX_QUEUED_ROWS, MAX_QUEUED_BYTES = 10_000, 64_000_000
GATHER_SECONDS = 0.02
TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
BEGIN;
CREATE TABLE IF NOT EXISTS predictions (
    prediction_id TEXT PRIMARY KEY, time REAL NOT NULL, version TEXT NOT NULL,
    identity TEXT NOT NULL, instance TEXT NOT NULL, label NOT NULL, confidence REAL NOT NULL,
    abstain INTEGER NOT NULL, latency_ms REAL NOT NULL, signals TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS feedback (
    prediction_id TEXT PRIMARY KEY, time REAL NOT NULL, label NOT NULL
);
CREATE TABLE IF NOT EXISTS models (identity TEXT PRIMARY KEY, model TEXT NOT NULL);
COMMIT;
"""  # a label has no type in SQL, so that text stays text and a number stays a number


class Record(TypedDict):
    """One answered item; `instance` is the request item as sent, `signals` what the monitor
    compares.
    """

    prediction_id: str
    time: float  # Unix seconds
    version: str
    identity: str
    instance: dict[str, Any]
    label: str | float  # the answered class or value
    confidence: float
    abstain: bool
    latency_ms: float
    signals: dict[str, Any]  # probabilities, or interval and deviation; embedding or None; signals


class Model(TypedDict):
    """What the answers of one bundle are, and so how they are judged."""

    task: str
    kind: Kind
    labels: list[str]


def model_of(card: Card) -> Model:
    """What a bundle's card says of its answers."""
    return Model(task=card.task, kind=card.kind, labels=card.labels)


Row = tuple[str, tuple[Any, ...]]  # a statement and its values
COLUMNS = tuple(Record.__annotations__)
JSON = ("instance", "signals")
PLACES = ", ".join("?" * len(COLUMNS))
ADD = f"INSERT OR IGNORE INTO predictions ({', '.join(COLUMNS)}) VALUES ({PLACES})"
JUDGE = "INSERT OR REPLACE INTO feedback (prediction_id, time, label) VALUES (?, ?, ?)"
# Rows are only ever added at the end and removed at the start, so row numbers count them.
COMPLETE = "SELECT count(*) = 2 FROM sqlite_master WHERE name IN ('predictions', 'feedback')"
OLD = (
    "SELECT prediction_id FROM predictions WHERE rowid <= (SELECT max(rowid) FROM predictions) - ?"
)
FIND = "SELECT identity FROM predictions WHERE prediction_id = :id"
KNOW = "INSERT OR IGNORE INTO models (identity, model) VALUES (?, ?)"
KNOWN = "SELECT name FROM sqlite_master WHERE name = 'models'"
RECENT = """
SELECT p.*, f.label AS feedback FROM predictions p LEFT JOIN feedback f USING (prediction_id)
WHERE (:identity IS NULL OR p.identity = :identity) AND (f.label IS NOT NULL OR NOT :labelled)
ORDER BY p.rowid DESC LIMIT :limit
"""


def recent(
    path: Path, limit: int, identity: str | None = None, labelled: bool = False
) -> list[dict[str, Any]]:
    """The newest `limit` predictions, newest last, each with "feedback" (the true label or None);
    no file, no rows.

    `identity` keeps those of one bundle, `labelled` those with feedback. Works while another
    process writes.
    """
    values = {"identity": identity, "labelled": labelled, "limit": limit}
    return [_record(row) for row in reversed(_query(path, RECENT, values))]


def models(path: Path) -> dict[str, Model]:
    """The models that answered, by identity. Those of version 0.1.0's stores are missing."""
    if not _query(path, KNOWN, {}):
        return {}
    return {row[0]: json.loads(row[1]) for row in _query(path, "SELECT * FROM models", {})}


class StoreBusy(Exception):
    """The queue is full, or the file cannot be read: the disk is slower than the requests, or
    fails.
    """


class Store:
    """Its writer thread starts with the first thing to write; the newest `max_rows` predictions are
    kept.
    """

    def __init__(
        self, path: Path, max_rows: int = 100_000, log: logging.Logger | None = None
    ) -> None:
        self.path, self.max_rows = path, max_rows
        self.dropped = 0
        self._log = log or logging.getLogger(__name__)
        self._lock = threading.Lock()
        self._ready, self._stored = threading.Condition(self._lock), threading.Condition(self._lock)
        self._queue: deque[Row] = deque()
        self._bytes = 0
        # Identity of the model by id, of what is answered and not yet committed.
        self._pending: dict[str, str] = {}
        self._writer: threading.Thread | None = None
        self._closing = False

    @property
    def depth(self) -> int:
        """Rows that wait to be committed."""
        return len(self._queue)

    def append(self, records: Sequence[Record]) -> int:
        """Queues records without waiting. Returns how many were dropped: all of them or none."""
        rows = [(ADD, _row(record)) for record in records]
        with self._lock:
            if not self._put(rows):
                self.dropped += len(rows)
                return len(rows)
            self._pending |= {record["prediction_id"]: record["identity"] for record in records}
        return 0

    def know(self, identity: str, model: Model) -> None:
        """Queues what the answers of a bundle are."""
        with self._lock:
            self._put([(KNOW, (identity, json.dumps(model)))])

    def answered_by(self, prediction_id: str) -> str | None:
        """Identity of the bundle that made a prediction; None where there is no such prediction.
        Raises StoreBusy.
        """
        with self._lock:
            identity = self._pending.get(prediction_id)
        try:
            rows = [] if identity else _query(self.path, FIND, {"id": prediction_id})
        except sqlite3.Error as error:
            raise StoreBusy from error
        return str(rows[0][0]) if rows else identity

    def feedback(self, prediction_id: str, label: str | float) -> None:
        """Queues the true label of a prediction. Raises StoreBusy."""
        with self._lock:
            if not self._put([(JUDGE, (prediction_id, time.time(), label))]):
                raise StoreBusy

    def flush(self, seconds: float = 10.0) -> bool:
        """Waits until everything queued so far is committed; False if that takes longer."""
        with self._lock:
            return self._stored.wait_for(lambda: not self._queue, seconds)

    def close(self) -> None:
        """Commits what is queued and ends the writer."""
        with self._lock:
            self._closing = True
            self._ready.notify()
        if self._writer:
            self._writer.join()
            atexit.unregister(self.close)

    def _put(self, rows: list[Row]) -> bool:
        size = sum(_size(row) for row in rows)
        full = len(self._queue) + len(rows) > MAX_QUEUED_ROWS
        if full or self._bytes + size > MAX_QUEUED_BYTES or self._closing:
            return False
        self._queue.extend(rows)
        self._bytes += size
        if self._writer is None:
            # Whoever forgets to close must neither hang at the end nor lose what is queued.
            self._writer = threading.Thread(target=self._write, name="store", daemon=True)
            self._writer.start()
            atexit.register(self.close)
        self._ready.notify()
        return True

    def _write(self) -> None:
        """The writer thread: commits all there is, again and again; a failing disk costs rows,
        never the thread.
        """
        failing = False
        while True:
            with self._lock:
                self._ready.wait_for(lambda: self._queue or self._closing)
            time.sleep(0 if self._closing else GATHER_SECONDS)
            with self._lock:
                rows = list(self._queue)
            if not rows:
                return
            try:
                self._commit(rows)
                failing = False
            except (sqlite3.Error, OSError) as error:
                if not failing:
                    self._log.error("predictions are not stored: %s: %s", self.path, error)
                failing = True
            self._done(rows, failing)

    def _commit(self, rows: list[Row]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(self.path)) as connection:
            connection.executescript(TABLES)
            with connection:
                for statement, values in rows:
                    connection.execute(statement, values)
                for table in ("feedback", "predictions"):
                    delete = f"DELETE FROM {table} WHERE prediction_id IN ({OLD})"
                    connection.execute(delete, (self.max_rows,))

    def _done(self, rows: list[Row], failed: bool) -> None:
        added = [values[0] for statement, values in rows if statement is ADD]
        with self._lock:
            for row in rows:
                self._queue.popleft()
                self._bytes -= _size(row)
            for prediction_id in added:
                self._pending.pop(prediction_id, None)
            self.dropped += len(added) if failed else 0
            self._stored.notify_all()


def _query(path: Path, query: str, values: dict[str, Any]) -> list[sqlite3.Row]:
    """Rows of a query; none where there is no file, or one whose tables another process is about to
    make.
    """
    if not path.is_file():
        return []
    with closing(_connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        complete = connection.execute(COMPLETE).fetchone()[0]
        return connection.execute(query, values).fetchall() if complete else []


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=30)


def _size(row: Row) -> int:
    return sum(len(value) for value in row[1] if isinstance(value, str))


def _row(record: Record) -> tuple[Any, ...]:
    values: dict[str, Any] = dict(record)
    for name in JSON:
        values[name] = json.dumps(values[name], separators=(",", ":"))
    return tuple(values[name] for name in COLUMNS)


def _record(row: sqlite3.Row) -> dict[str, Any]:
    values = dict(row)
    for name in JSON:
        values[name] = json.loads(values[name])
    return values | {"abstain": bool(values["abstain"])}

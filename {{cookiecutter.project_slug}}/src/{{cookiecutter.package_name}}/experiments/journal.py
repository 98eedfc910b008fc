"""What a run records, as lines in a local file: written at once, delivered by `sync` whenever the
tracker answers.

Training writes here and nowhere else, so a tracker that is slow or away neither stops nor slows it.
Delivering a line twice changes nothing in MLflow, so a delivery that was cut off is simply
repeated.
"""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..provenance import write_json

Line = dict[str, Any]
OPENED = ("start", "resume", "continue")


def new_key() -> str:
    return uuid.uuid4().hex


class Journal:
    """One run's lines in `<folder>/lines.jsonl`, its files in `<folder>/files/`, and how far they
    are delivered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, folder.name
        self.path = folder / "lines.jsonl"
        self.recorded: set[tuple[str, int]] | None = (
            None  # metrics by name and step, where an earlier process wrote
        )

    def exists(self) -> bool:
        return self.path.is_file()

    def open(self, kind: str, **fields: Any) -> None:
        """First line of a run, or of a process that goes on with it; `kind` is one of OPENED."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.exists():
            if not self.path.read_bytes().endswith(
                b"\n"
            ):  # the machine went down in the middle of a line
                with self.path.open("ab") as file:
                    file.write(b"\n")
            if kind == "resume":
                lines = [line for line in self.lines() if line["kind"] == "metrics"]
                self.recorded = {(name, line["step"]) for line in lines for name in line["values"]}
        with self.lock():
            self.append(kind, pid=os.getpid(), **fields)

    def lock(self) -> FileLock:
        return FileLock(self.folder / "lock")

    def append(self, kind: str, **fields: Any) -> None:
        """One line in one write: whole after a kill -9, and never mixed with another process's."""
        line = json.dumps({"kind": kind, "time": int(time.time() * 1000), **fields}) + "\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Values of a step; those that an interrupted process had recorded already are left out."""
        if self.recorded is not None:
            values = {
                name: value for name, value in values.items() if (name, step) not in self.recorded
            }
        if values:
            self.append("metrics", step=step, values=values)

    def file(self, path: Path, folder: str) -> None:
        """A copy of a file or folder: the original may be gone when the tracker answers."""
        name = f"files/{new_key()}"
        (self.folder / name).mkdir(parents=True)
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, self.folder / name / path.name)
        self.append("artifact", file=f"{name}/{path.name}", folder=folder, whole=path.is_dir())

    def text(self, content: str, path: str) -> None:
        """A text file of its own making; `path` is its place in the run."""
        folder, _, name = path.rpartition("/")
        draft = self.folder / "files" / new_key() / name
        draft.parent.mkdir(parents=True)
        draft.write_text(content, encoding="utf-8")
        self.append(
            "artifact", file=draft.relative_to(self.folder).as_posix(), folder=folder, whole=False
        )

    def lines(self, offset: int = 0) -> Iterator[Line]:
        """Whole lines from a byte offset on, each with the offset of its `end`."""
        with self.path.open("rb") as file:
            file.seek(offset)
            for text in file:
                offset += len(text)
                with contextlib.suppress(ValueError):
                    yield {**json.loads(text), "end": offset}

    @property
    def delivered(self) -> Line:
        """`offset` up to which lines are delivered, `run_id` in the tracker once there is one."""
        path = self.folder / "delivered.json"
        known: Line = (
            json.loads(path.read_text(encoding="utf-8"))
            if path.is_file()
            else {"offset": 0, "run_id": None}
        )
        return known

    def deliver_to(self, offset: int, run_id: str | None) -> None:
        write_json(self.folder / "delivered.json", {"offset": offset, "run_id": run_id})

    def waits(self) -> bool:
        return bool(self.path.stat().st_size > self.delivered["offset"])

    def closed(self) -> bool:
        """Whether the last process that opened the run has also ended it."""
        last = [
            line["kind"] for line in self.lines() if line["kind"] in (*OPENED, "finish", "close")
        ]
        return bool(last) and last[-1] not in OPENED

    def resumable(self) -> bool:
        """Whether the run ended as FAILED or KILLED, so that a later process may go on with it."""
        ends = [line for line in self.lines() if line["kind"] == "finish"]
        return bool(ends) and ends[-1]["status"] != "FINISHED"


def journals(folder: Path) -> list[Journal]:
    """All that are on disk, oldest first: parents stand before their children."""
    found = [Journal(path.parent) for path in folder.glob("*/lines.jsonl")]
    return sorted(found, key=lambda journal: next(journal.lines(), {"time": 0})["time"])

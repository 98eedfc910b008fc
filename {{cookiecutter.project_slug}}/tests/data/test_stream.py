import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from harness import PACKAGE, Project, module

stream, datamodule = module("data.stream"), module("data.datamodule")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
GROUP = 7  # rows of a row group, so that there are many


@pytest.fixture
def split(project: Project) -> Project:
    """A project whose training rows lie in many small row groups."""
    for verb in ("ingest", "validate", "split"):
        project.run(verb)
    path = Path("data/splits/train.parquet")
    pq.write_table(pq.read_table(path).slice(0, 150), path, row_group_size=GROUP)
    return project


def make(
    project: Project,
    seed: int | None = 1,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    size: int = 4,
) -> Any:
    settings = project.settings()
    return stream.Stream(
        Path("data/splits/train.parquet"),
        settings.data,
        size,
        seed,
        rank,
        world,
        stream.Workers(workers),
    )


def rows(batches: Any) -> list[bytes]:
    """Each row as bytes: inputs and label."""
    found = []
    for batch in batches:
        parts = [*batch["inputs"].values(), batch["label"]]
        found += [
            b"".join(part[i].numpy().tobytes() for part in parts)
            for i in range(len(batch["label"]))
        ]
    return found


def test_without_a_seed_batches_are_those_from_memory(split: Project) -> None:
    memory = datamodule.Batches(datamodule.load(split.settings(), "train"), 4)
    ours, theirs = list(make(split, seed=None).batches(0, 0)), list(memory.batches(0, 0))
    assert rows(ours) == rows(theirs) and len(ours) == len(theirs) == len(
        make(split, seed=None)
    ) == len(memory)
    assert [len(b["label"]) for b in ours] == [len(b["label"]) for b in theirs]


def test_each_epoch_has_all_rows_in_an_order_of_its_own(split: Project) -> None:
    memory = rows(datamodule.Batches(datamodule.load(split.settings(), "train"), 4).batches(0, 0))
    first, second = (rows(make(split).batches(epoch, 0)) for epoch in (0, 1))
    assert (
        sorted(first) == sorted(second) == sorted(memory)
        and len({*map(tuple, (first, second, memory))}) == 3
    )
    assert rows(make(split).batches(1, 0)) == second != rows(make(split, seed=2).batches(1, 0))
    # Rows come from more than one row group, and from far away.
    places = [memory.index(row) // GROUP for row in first[:8]]
    assert len({*places}) > 3


@pytest.mark.parametrize("count", [1, 3])
def test_workers_change_nothing(
    split: Project, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "CHUNK_BYTES", 1)  # a batch at a time
    here, there = make(split), make(split, workers=count)
    try:
        for epoch in (0, 1):
            assert rows(there.batches(epoch, 3)) == rows(here.batches(epoch, 3))
        next(iter(there.batches(2, 0)))  # a pass that is left early disturbs no other
        assert rows(there.batches(3, 0)) == rows(here.batches(3, 0))
    finally:
        there.workers.close()


@pytest.mark.row("T4")
def test_an_epoch_goes_on_at_a_position_without_reading_what_lies_behind(
    split: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read, windows = make(split), stream.Stream._read, list[Any]()

    def spy(self: Any, window: Any) -> Any:
        windows.append(window)
        return read(self, window)

    monkeypatch.setattr(stream.Stream, "_read", spy)
    whole = list(source.batches(5, 0))
    assert max(map(len, windows)) == stream.WINDOW and len(windows) == 3  # 22 row groups
    ends = np.cumsum([sum(end - first for _, first, end in window) for window in windows])
    for position in (1, 17, len(whole) - 1, len(whole)):
        windows.clear()
        assert rows(source.batches(5, position)) == rows(whole[position:])
        assert len(windows) == sum(end > position * 4 for end in ends)


def test_ranks_get_disjoint_shares_of_one_size(split: Project) -> None:
    memory = rows(datamodule.Batches(datamodule.load(split.settings(), "train"), 4).batches(0, 0))
    for world in (2, 3, 4):  # 150 rows: 4 ranks need 2 of them twice
        ranks = [rows(make(split, rank=rank, world=world).batches(1, 0)) for rank in range(world)]
        seen = [row for rank in ranks for row in rank]
        assert {len(r) for r in ranks} == {-(-150 // world)}
        assert len(make(split, world=world)) == -(-len(ranks[0]) // 4)
        assert {*seen} == {*memory} and len(seen) - len(memory) == -150 % world


def test_a_pass_holds_a_bounded_number_of_bytes(
    split: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "WINDOW_BYTES", 1)
    assert {len(window) for window in make(split).windows(0)} == {1}
    assert make(split).chunk % 4 == 0 and make(split, size=149).chunk % 149 == 0


def test_streamed_data_are_sampled_where_they_are_held_in_memory(
    split: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = split.settings("training.streaming=true")
    whole, scale = datamodule.load(split.settings(), "train"), datamodule.label_scale(settings)
    assert datamodule.load(settings, "train").rows.equals(whole.rows)
    monkeypatch.setattr(datamodule, "SAMPLE_ROWS", 50)
    sample, other = (
        datamodule.load(settings, "train"),
        datamodule.load(split.settings("training.streaming=true", "seed=9"), "train"),
    )
    assert len(sample) == 50 == len({*sample.rows["id"]}) and {*sample.rows["id"]} < {
        *whole.rows["id"]
    }
    assert sample.rows.equals(datamodule.load(settings, "train").rows) and not sample.rows.equals(
        other.rows
    )
    assert list(sample.rows["id"]) == [i for i in whole.rows["id"] if i in {*sample.rows["id"]}]
    expected = (
        float(np.std(whole.label, dtype=np.float64)) if settings.data.kind == "regression" else 1
    )
    assert scale == pytest.approx(expected, rel=1e-9)


def _die(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return item


def _fail(item: int) -> int:
    if item == 3:
        raise KeyError("no such column")
    return item


@pytest.mark.parametrize("work, error", [(_die, ValueError), (_fail, KeyError)])
def test_a_worker_that_dies_or_fails_ends_the_pass_at_once(
    work: Callable[[int], int], error: type[Exception]
) -> None:
    workers, seen = stream.Workers(2), list[int]()
    try:
        with pytest.raises(
            error, match="fewer training.workers" if error is ValueError else "no such column"
        ):
            seen += workers.map(work, range(100))
    finally:
        workers.close()
    assert not multiprocessing.active_children()


def until(condition: Callable[[], Any], process: Any) -> Any:
    """What the condition gives once that is true; fails after minutes, and where the process ends
    before.
    """
    ends = time.monotonic() + 300
    while not (found := condition()):
        assert time.monotonic() < ends, "nothing within minutes"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    return found


def workers_of(process: Any) -> list[psutil.Process]:
    """Its forked children: they have its command line."""
    parent, found = psutil.Process(process.pid), []
    for child in parent.children():
        with contextlib.suppress(
            psutil.NoSuchProcess
        ):  # it started another program, and that has ended
            if child.status() != psutil.STATUS_ZOMBIE and child.cmdline() == parent.cmdline():
                found.append(child)
    return found


@pytest.mark.slow
@pytest.mark.row("T4")
@pytest.mark.skipif(
    multiprocessing.get_all_start_methods()[0] != "fork", reason="workers are told by being forks"
)
@pytest.mark.parametrize("victim", ["worker", "training"])
def test_a_killed_worker_ends_training_and_no_worker_outlives_it(
    split: Project, victim: str
) -> None:
    options = ["training.streaming=true", "training.workers=2", "trainer.max_epochs=100000"]
    options += ["trainer.enable_progress_bar=false", "training.early_stopping_patience=100000"]
    command = [sys.executable, "-m", PACKAGE, "train", "--pipeline", *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        workers = until(
            lambda: (
                len(found := workers_of(process)) == 2 and found == workers_of(process) and found
            ),
            process,
        )
        (workers[0] if victim == "worker" else process).kill()
        _, errors = process.communicate(timeout=300)
        until(
            lambda: not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers),
            None,
        )
    finally:
        process.kill()
    if victim == "worker":
        assert process.returncode == 2 and "Traceback" not in errors
        assert errors.splitlines()[-1].startswith("error: a worker process died")

"""Streamed batches: all rows, in an order of seed and epoch, whatever the workers and ranks."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from harness import Project, module

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
datamodule = module("data.datamodule")
FILE = Path("data/splits/train.parquet")


@pytest.fixture
def split(project: Project) -> Project:
    """A project whose training rows lie in many small row groups."""
    for verb in ("ingest", "validate", "split"):
        project.run(verb)
    pq.write_table(pq.read_table(FILE).slice(0, 150), FILE, row_group_size=7)
    return project


def loader(project: Project, seed: int | None = 1, workers: int = 0) -> Any:
    settings = project.settings(f"training.workers={workers}")
    return module("data.stream").StreamLoader(settings, FILE, 4, seed)


def rows(batches: Any) -> list[bytes]:
    """Each row as bytes: inputs and label."""
    contents = []
    for batch in batches:
        parts = [*batch["inputs"].values(), batch["label"]]
        for i in range(len(batch["label"])):
            contents.append(b"".join(part[i].numpy().tobytes() for part in parts))
    return contents


def in_memory(project: Project) -> list[bytes]:
    return rows(datamodule.Batches(datamodule.load(project.settings(), "train"), 4))


def test_without_a_seed_rows_come_in_their_order(split: Project) -> None:
    assert rows(loader(split, seed=None)) == in_memory(split)


def test_each_epoch_has_all_rows_in_an_order_of_its_own(split: Project) -> None:
    stream = loader(split).stream
    first = rows(stream)
    stream.epoch = 1
    second = rows(stream)
    assert sorted(first) == sorted(second) == sorted(in_memory(split)) and first != second
    assert rows(loader(split)) == first != rows(loader(split, seed=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_all_rows(split: Project, workers: int) -> None:
    batches = list(loader(split, workers=workers))
    assert sorted(rows(batches)) == sorted(in_memory(split))
    assert len(batches) == len(loader(split))


@pytest.mark.row("T4")
def test_an_epoch_goes_on_at_a_position(split: Project) -> None:
    stream = loader(split).stream
    whole = list(stream)
    for position in (1, 17, len(whole)):
        stream.position = position
        assert rows(stream) == rows(whole[position:])


def test_ranks_get_shares_of_one_size(split: Project) -> None:
    settings, stream = split.settings(), module("data.stream").Stream
    for world in (2, 3):
        ranks = [rows(stream(settings, FILE, 4, 1, rank, world)) for rank in range(world)]
        assert len({len(part) for part in ranks}) == 1
        assert {row for part in ranks for row in part} == {*in_memory(split)}


def test_streamed_data_are_sampled_where_they_are_held_in_memory(
    split: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = split.settings("training.streaming=true")
    whole = datamodule.load(split.settings(), "train")
    assert datamodule.load(settings, "train").rows.equals(whole.rows)
    monkeypatch.setattr(datamodule, "SAMPLE_ROWS", 50)
    sample = datamodule.load(settings, "train")
    assert len({*sample.rows["id"]}) == 50 and {*sample.rows["id"]} < {*whole.rows["id"]}


@pytest.mark.slow
def test_a_streamed_training_runs_through(split: Project) -> None:
    split.run("train", "training.streaming=true", "training.workers=1", "trainer.max_epochs=2")
    assert (split.settings().paths.model / "best.ckpt").is_file()

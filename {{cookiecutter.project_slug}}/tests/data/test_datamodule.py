from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from harness import module

datamodule = module("data.datamodule")


class Position:
    """Stands for a trainer: an epoch, the last batch done in it, and a rank."""

    training = True

    def __init__(self, epoch: int, batch_idx: int = -1, rank: int = 0, world: int = 1) -> None:
        self.current_epoch, self.batch_idx, self.fit_loop = epoch, batch_idx, self
        self.global_rank, self.world_size = rank, world


@pytest.fixture
def examples() -> Any:
    inputs = {"x": np.arange(10, dtype=np.float32)[:, None]}
    return datamodule.Examples(inputs, np.arange(10), pd.DataFrame({"id": range(10)}))


def labels(batches: Any) -> list[int]:
    return list(torch.cat([batch["label"] for batch in batches]).tolist())


def test_order_follows_from_seed_and_epoch(examples: Any) -> None:
    first, again, second = (
        labels(datamodule.Batches(examples, 3, 1, Position(epoch))) for epoch in (0, 0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(10))
    assert first == again != second and first != sorted(first)


def test_inputs_stay_with_their_labels(examples: Any) -> None:
    for batch in datamodule.Batches(examples, 4, 3):
        assert batch["inputs"]["x"][:, 0].tolist() == batch["label"].tolist()


@pytest.mark.row("T4")
def test_a_pass_goes_on_where_an_epoch_was_left(examples: Any) -> None:
    whole = list(datamodule.Batches(examples, 3, 1, Position(2)))
    rest = list(datamodule.Batches(examples, 3, 1, Position(2, batch_idx=1)))
    assert len(whole) == 4 and labels(rest) == labels(whole[2:])


def test_ranks_share_the_rows_in_equally_many_steps(examples: Any) -> None:
    ranks = [
        labels(datamodule.Batches(examples, 2, 5, Position(0, rank=rank, world=3)))
        for rank in range(3)
    ]
    assert {row for rows in ranks for row in rows} == set(range(10))
    assert len({len(rows) for rows in ranks}) == 1

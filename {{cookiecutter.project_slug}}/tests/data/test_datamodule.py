import numpy as np
import pandas as pd
import pytest
import torch
from harness import module

datamodule = module("data.datamodule")


@pytest.fixture
def examples():  # type: ignore[no-untyped-def]
    n = 10
    return datamodule.Examples(
        {"x": np.arange(n, dtype=np.float32)[:, None]}, np.arange(n), pd.DataFrame({"id": range(n)})
    )


def labels(batches) -> list[int]:  # type: ignore[no-untyped-def]
    return torch.cat([b["label"] for b in batches]).tolist()


def test_order_follows_from_seed_and_epoch(examples) -> None:  # type: ignore[no-untyped-def]
    one, two = (datamodule.Batches(examples, 3, seed=1) for _ in range(2))
    first = labels(one)
    assert sorted(first) == list(range(10)) and first != list(range(10))
    assert labels(two) == first and labels(two) == labels(one) != first
    assert len(one) == 4 == len(list(one))


def test_inputs_stay_with_their_labels(examples) -> None:  # type: ignore[no-untyped-def]
    for batch in datamodule.Batches(examples, 4, seed=3):
        assert batch["inputs"]["x"][:, 0].tolist() == batch["label"].tolist()


def test_ranks_share_the_rows_in_equally_many_steps(examples) -> None:  # type: ignore[no-untyped-def]
    ranks = [datamodule.Batches(examples, 2, seed=5, rank=r, world=3) for r in range(3)]
    seen = [labels(r) for r in ranks]
    assert {row for rows in seen for row in rows} == set(range(10)) and len({len(s) for s in seen}) == 1

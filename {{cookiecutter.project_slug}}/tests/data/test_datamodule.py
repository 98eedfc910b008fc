from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from harness import Project, module
from lightning.pytorch.callbacks import ModelCheckpoint

datamodule = module("data.datamodule")


@pytest.fixture
def examples() -> Any:
    n = 10
    return datamodule.Examples(
        {"x": np.arange(n, dtype=np.float32)[:, None]}, np.arange(n), pd.DataFrame({"id": range(n)})
    )


def labels(batches: Any) -> list[int]:
    return list(torch.cat([b["label"] for b in batches]).tolist())


def passes(*arguments: Any, **options: Any) -> Any:
    return datamodule.Loader(datamodule.Batches(*arguments, **options))


def test_order_follows_from_seed_and_epoch(examples: Any) -> None:
    one, two = (passes(examples, 3, seed=1) for _ in range(2))
    first = labels(one)
    assert sorted(first) == list(range(10)) and first != list(range(10))
    assert labels(two) == first and labels(two) == labels(one) != first
    assert len(one) == 4 == len(list(one))


def test_inputs_stay_with_their_labels(examples: Any) -> None:
    for batch in passes(examples, 4, seed=3):
        assert batch["inputs"]["x"][:, 0].tolist() == batch["label"].tolist()


def test_ranks_share_the_rows_in_equally_many_steps(examples: Any) -> None:
    ranks = [passes(examples, 2, seed=5, rank=r, world=3) for r in range(3)]
    seen = [labels(r) for r in ranks]
    assert {row for rows in seen for row in rows} == set(range(10)) and len(
        {len(s) for s in seen}
    ) == 1


def test_a_loader_goes_on_from_its_state(examples: Any) -> None:
    whole = passes(examples, 3, seed=1)
    expected = [labels(whole) for _ in range(3)]
    for stop in range(1, 5):  # 4 is the end of the pass
        loader, resumed = passes(examples, 3, seed=1), passes(examples, 3, seed=1)
        list(loader)
        iterator = iter(loader)
        seen = labels([next(iterator) for _ in range(stop)])
        resumed.load_state_dict(loader.state_dict())
        if stop < 4:
            assert seen + labels(resumed) == expected[1]
        assert labels(resumed) == expected[2]


QUIET = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*:FutureWarning", "ignore:Checkpoint directory.*"
)


class Recorder(L.LightningModule):
    """Notes which rows each training step saw; asks for the number of steps, as schedules do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen, self.waited = (
            torch.nn.Parameter(torch.zeros(())),
            list[list[float]](),
            list[float](),
        )

    def training_step(self, batch: Any, _: int) -> Any:
        self.seen.append(
            [
                batch["label"].double().sum().item(),
                next(iter(batch["inputs"].values())).sum().item(),
            ]
        )
        return self.weight * 0.0

    def validation_step(self, batch: Any, _: int) -> Any:
        self.log("val/rows", float(len(batch["label"])), batch_size=1, reduce_fx="sum")

    def on_train_epoch_end(self) -> None:
        self.waited.append(self.trainer.datamodule.waited)  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD([self.weight])


def fit(settings: Any, checkpoint: Path | None = None) -> Recorder:
    folder = Path("checkpoints")
    saves: list[L.Callback] = [
        ModelCheckpoint(
            folder,
            "step{step}",
            every_n_train_steps=2,
            save_top_k=-1,
            auto_insert_metric_name=False,
        ),
        ModelCheckpoint(
            folder,
            "epoch{step}",
            save_top_k=-1,
            auto_insert_metric_name=False,
            save_on_train_epoch_end=True,
        ),
    ]
    module, settings = Recorder(), settings.model_copy(update={"augmentation": None})
    limits = {
        "limit_train_batches": settings.trainer.limit_train_batches,
        "overfit_batches": settings.trainer.overfit_batches,
    }
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=3, callbacks=saves, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=1, **limits,
    )  # fmt: skip
    trainer.fit(module, datamodule.DataModule(settings), ckpt_path=checkpoint, weights_only=False)
    rows = len(pd.read_parquet("data/splits/val.parquet"))
    assert (
        trainer.callback_metrics.get("val/rows", rows) == rows or limits["overfit_batches"]
    )  # none after the end
    return module


@QUIET
@pytest.mark.row("T4")
@pytest.mark.parametrize(
    "options", [[], ["training.streaming=true"], ["trainer.limit_train_batches=3"]]
)
def test_training_goes_on_with_the_batches_that_it_would_have_seen(
    project: Project, options: list[str]
) -> None:
    for verb in ("ingest", "validate", "split"):
        project.run(verb)
    steps = 3 if any("limit" in o for o in options) else 4
    size = -(-len(pd.read_parquet("data/splits/train.parquet")) // 4)
    settings = project.settings(f"training.batch_size={size}", *options)
    whole = fit(settings)
    assert len(whole.seen) == 3 * steps and len({tuple(x) for x in whole.seen}) == 3 * steps
    assert all(0 < share < 1 for share in whole.waited)
    checkpoints = sorted(Path("checkpoints").glob("*.ckpt"))
    assert {f"step{n}.ckpt" for n in range(2, 3 * steps, 2)} <= {c.name for c in checkpoints}
    for checkpoint in checkpoints:
        done = int("".join(filter(str.isdigit, checkpoint.name)))
        assert fit(settings, checkpoint).seen == whole.seen[done:], checkpoint.name


@QUIET
@pytest.mark.row("T2")
@pytest.mark.parametrize("streaming", ["false", "true"])
def test_overfitting_sees_one_batch_again_and_again(project: Project, streaming: str) -> None:
    for verb in ("ingest", "validate", "split"):
        project.run(verb)
    settings = project.settings(f"training.streaming={streaming}", "trainer.overfit_batches=1")
    seen = fit(settings).seen
    assert len(seen) == 3 and seen[0] == seen[1] == seen[2]

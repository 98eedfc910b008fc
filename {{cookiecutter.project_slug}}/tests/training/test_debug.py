"""Every preset of configs/debug does in a real training what it is for."""

import logging
from typing import Any

import pytest
import torch
import yaml
from harness import Project, module


def preset(trained: Project, name: str, *overrides: str) -> None:
    """Trains with a debug preset, as `train debug=<name>` does."""
    text = module("pipeline").compose(
        [f"debug={name}", "trainer.enable_progress_bar=false", *overrides]
    )
    module("training.train").train(module("settings").parse(yaml.safe_load(text)))


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Lightning trainers that were made, after their training as they are."""
    made, fit = [], module("training.fit")

    class Kept(fit.L.Trainer):  # type: ignore[misc, name-defined]
        def __init__(self, **options: object) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(fit.L, "Trainer", Kept)
    return made


@pytest.mark.row("T2")
def test_fast_takes_one_batch_through_everything_and_keeps_nothing(
    trained: Project, trainers: list[Any]
) -> None:
    preset(trained, "fast")
    assert trainers[0].global_step == 1 and trainers[0].num_val_batches == [1]
    assert not trainers[0].checkpoint_callbacks


@pytest.mark.row("T2")
def test_mixed_precision_trains_with_an_optimizer_that_is_fused_or_not(
    trained: Project, trainers: list[Any]
) -> None:
    for optimizer in ("adamw", "nadam"):
        preset(trained, "fast", "trainer.precision=bf16-mixed", f"optimizer={optimizer}")
    preset(trained, "limit")
    assert [trainer.global_step for trainer in trainers] == [1, 1, 2 * 3]


@pytest.mark.row("T2")
def test_profiler_shows_what_took_the_time(
    trained: Project, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lightning.pytorch").addHandler(caplog.handler)
    preset(trained, "profiler")
    logging.getLogger("lightning.pytorch").removeHandler(caplog.handler)
    assert "Profiler Report" in caplog.text and "run_training_epoch" in caplog.text


@pytest.mark.slow
@pytest.mark.row("T2")
def test_overfitting_one_batch_passes_and_fails_where_nothing_is_learned(
    trained: Project, trainers: list[Any]
) -> None:
    preset(trained, "overfit")
    assert trainers[0].global_step == trainers[0].current_epoch == 150  # one batch, again and again
    with pytest.raises(ValueError, match="the network cannot learn"):
        preset(trained, "overfit", "optimizer.lr=0", "trainer.max_epochs=20")


@pytest.mark.row("T2")
def test_anomaly_detection_names_the_operation(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(torch.nn.Module):
        def forward(self, raw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return (raw.mean() - 1e9).sqrt()

    monkeypatch.setattr(module("modeling.losses"), "default", lambda kind: Broken())
    with (
        pytest.warns(UserWarning, match="Error detected in SqrtBackward0"),
        pytest.raises(RuntimeError, match="nan"),
    ):
        preset(trained, "anomaly")

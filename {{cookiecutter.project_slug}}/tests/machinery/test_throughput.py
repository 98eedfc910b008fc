"""`trainer=throughput` beside `trainer=cpu`: equal steps and weights."""

from typing import Any

import lightning as L
import pytest
import torch
from harness import Project, module

SHORT = ["trainer.max_epochs=2", "training.batch_size=16"]
WAYS = {
    "as it is": [],
    "no clipping": ["trainer.gradient_clip_val=null"],
    "strong clipping": ["trainer.gradient_clip_val=0.001"],
}


def fitted(project: Project, batches: int, *overrides: str) -> L.Trainer:
    settings: Any = project.settings(*SHORT, f"trainer.batches_per_step={batches}", *overrides)
    settings = settings.model_copy(update={"augmentation": None, "scheduler": None})
    fit = module("training.fit")
    fit.setup(settings)
    callbacks = [module("training.health").Health(settings)]
    trainer: L.Trainer = fit.make_trainer(settings, [], callbacks, clips=batches == 1)
    trainer.fit(fit.build_module(settings), module("data.datamodule").DataModule(settings))
    return trainer


@pytest.mark.row("T1", "T3")
@pytest.mark.parametrize("way", WAYS)
def test_weights_and_steps_are_those_of_lightnings_loop(way: str, trained: Project) -> None:
    plain, chunked = fitted(trained, 1, *WAYS[way]), fitted(trained, 5, *WAYS[way])
    assert plain.global_step == chunked.global_step
    weights = chunked.lightning_module.state_dict()
    for name, value in plain.lightning_module.state_dict().items():
        assert torch.equal(weights[name], value), name
    for name in ("train/loss", "train/gradient_norm"):
        assert chunked.callback_metrics[name] == pytest.approx(float(plain.callback_metrics[name]))


def test_gradients_are_not_accumulated(trained: Project) -> None:
    with pytest.raises(ValueError, match="does not accumulate"):
        fitted(trained, 4, "trainer.accumulate_grad_batches=2")

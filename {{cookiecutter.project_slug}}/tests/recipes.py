"""What the tests of recipes share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Project, module


def workshop(trained: Project, folder: Path, *overrides: str) -> Any:
    """A recipe's workshop, whose records stay on this disk."""
    settings = trained.settings("trainer.max_epochs=2", *overrides)
    run = module("tracking").start(settings, "recipe")
    folder.mkdir(exist_ok=True)
    return module("recipes.variants").Workshop(settings, run, folder)


def scores(shop: Any, network: torch.nn.Module) -> dict[str, Any]:
    """The goal's metric of a network on both splits, found without the recipes' own code."""
    metric, found = shop.settings.data.goal.metric, {}
    for split in ("val", "test"):
        examples = module("data.datamodule").load(shop.settings, split)
        with torch.no_grad():
            raw = network.eval()(**{k: torch.from_numpy(v) for k, v in examples.inputs.items()})[
                0
            ].numpy()
        answers = (
            module("modeling.kinds").of(shop.settings.data.kind).decide(raw, module("types").Rule())
        )
        values = module("modeling.metrics").evaluate(
            shop.settings.data.kind, answers, examples.label
        )
        found[f"{split} {metric}"] = pytest.approx(values[metric], abs=1e-5)
    return found

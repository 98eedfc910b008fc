"""Gradient accumulation: one optimizer step for several batches, where memory does not hold them as
one.
"""

import shutil

import pandas as pd
import torch

from ..modeling.module import Module
from ..settings import Settings
from ..training.fit import build_module
from .variants import Curve, Workshop, changed, freeze_statistics


def recipe(shop: Workshop, parts: int = 4, tolerance: float = 1e-5) -> None:
    """Compares loss curves: as configured, and where both must be equal.

    As configured, they differ by more than rounding: batch norm takes its statistics from each
    part, dropout and augmentation draw other numbers, and a last, smaller batch of an epoch weighs
    its parts alike. Without those, in 64 bits and on whole batches, a difference above the
    tolerance is an error in accumulation: loss scaling, clipping or schedule.
    """
    settings = shop.settings
    size, times = settings.training.batch_size, settings.trainer.accumulate_grad_batches
    if size % parts:
        raise ValueError(
            f"a batch of {size} has no {parts} equal parts: choose parts=... or training.batch_size=..."
        )

    def pair(settings: Settings, suffix: str, build=build_module) -> tuple[Curve, Curve]:  # type: ignore[no-untyped-def]
        cut = changed(settings, "training", batch_size=size // parts)
        cut = changed(cut, "trainer", accumulate_grad_batches=times * parts)
        return (
            shop.train(f"{size} at once{suffix}", settings, build)[1],
            shop.train(f"{parts} x {size // parts}{suffix}", cut, build)[1],
        )

    shop.notes.append(
        f"as configured, the loss curves differ by {difference(*pair(settings, '')):.1e} at most"
    )
    found = pair(
        changed(whole_batches(shop, size), "trainer", precision="64-true"), ", still", still
    )
    apart = difference(*found)
    shop.failed = not apart <= tolerance or found[0].steps != found[1].steps
    shop.notes.append(
        f"still (no dropout, augmentation or batch statistics): {apart:.1e} at most in {found[0].steps} and "
        f"{found[1].steps} steps, tolerance {tolerance:g}: {'NOT ' if shop.failed else ''}the same"
    )


def difference(a: Curve, b: Curve) -> float:
    """Largest difference of the mean training loss of an epoch, over the epochs that both have."""
    return max(abs(x - y) for x, y in zip(a.losses, b.losses, strict=False))


def whole_batches(shop: Workshop, size: int) -> Settings:
    """Settings with training rows that fill each batch, and no augmentation."""
    splits, folder = shop.settings.paths.splits, shop.folder / "splits"
    folder.mkdir()
    rows = pd.read_parquet(splits / "train.parquet")
    if len(rows) < size:
        raise ValueError(
            f"{len(rows)} training rows do not fill a batch of {size}: choose a smaller training.batch_size"
        )
    rows[: len(rows) // size * size].to_parquet(folder / "train.parquet", index=False)
    shutil.copy(splits / "val.parquet", folder)
    return changed(shop.settings.model_copy(update={"augmentation": None}), "paths", splits=folder)


def still(settings: Settings) -> Module:
    """The configured module, in which nothing depends on how rows are put into batches."""
    module = build_module(settings)
    freeze_statistics(module.network)
    for layer in module.network.modules():
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.eval()
    return module

"""How the report shows pictures: an example, what changed in it, and what made the model answer as
it did.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray

from ..types import Answers, Examples
from .features import Features

Inputs = dict[str, NDArray[Any]]
COLUMNS, HEIGHT = 3, 0.85  # panels beside each other in a figure, and inches of each
GRID = 8  # features are the squares of a grid of at most this many rows and columns


def features(of: Features) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """Names of the squares of a grid, and the number of the square that each element [C, H, W] lies
    in.
    """
    rows, columns = min(GRID, of.height), min(GRID, of.width)
    row, column = (
        np.arange(of.height) * rows // of.height,
        np.arange(of.width) * columns // of.width,
    )
    square = np.broadcast_to(row[:, None] * columns + column, (of.channels, of.height, of.width))
    return [f"row {i + 1}, column {j + 1}" for i in range(rows) for j in range(columns)], {
        "image": square.copy()
    }


def reference(inputs: Inputs, of: Features) -> Inputs:
    """The mean picture [1, C, H, W], which attributions compare with."""
    return {"image": inputs["image"].mean(axis=0, keepdims=True).astype(np.float32)}


def example(axes: Any, inputs: Inputs, i: int, of: Features, before: Inputs | None = None) -> None:
    """Draws example i, beside what it was `before` a change."""
    shown = [inputs] if before is None else [before, inputs]
    for place, each in enumerate(shown):
        picture = np.moveaxis(each["image"][i], 0, -1).clip(0, 255).astype(np.uint8)
        _place(
            axes,
            picture.squeeze(),
            place,
            cmap="gray_r" if of.channels == 1 else None,
            vmin=0,
            vmax=255,
        )


def explained(
    axes: Any, inputs: Inputs, i: int, values: Inputs, by_feature: NDArray[Any], of: Features
) -> None:
    """Draws example i beside what its elements added: red spoke for the answer, blue against it."""
    example(axes, inputs, i, of)
    heat = values["image"][i].sum(axis=0)
    limit = np.abs(heat).max() or 1.0
    _place(axes, heat, 1, cmap="bwr", vmin=-limit, vmax=limit)


def _place(axes: Any, picture: NDArray[Any], place: int, **how: Any) -> None:
    """Draws a picture [H, W, ...] into the axes, right of `place` others."""
    height, width = picture.shape[:2]
    left = place * 1.08 * width
    axes.imshow(picture, extent=(left, left + width, 0, height), **how)
    axes.set(xlim=(0, left + width), ylim=(0, height))
    axes.set_axis_off()


def importance(figure: Any, values: Inputs, by_feature: NDArray[Any], of: Features) -> None:
    """Heat map of how much each place of a picture added, over all rows."""
    axes = figure.subplots()
    shown = axes.imshow(np.abs(values["image"].sum(axis=1)).mean(axis=0), cmap="Reds", vmin=0)
    axes.set_axis_off()
    figure.colorbar(shown, ax=axes, label="mean size of what a place added")


def head(rows: pd.DataFrame, of: Features) -> pd.DataFrame | None:
    """The first raw rows as a table; pictures are not shown as one."""
    return None


def charts(
    examples: Examples,
    answers: Callable[[Inputs], Answers],
    losses: Callable[[Inputs, NDArray[Any]], NDArray[np.floating]],
    of: Features,
    rng: Generator,
) -> dict[str, Callable[[Any], None]]:
    """Drawers of further charts by name: pictures have none."""
    return {}

"""How the report shows pictures: an example, what changed in it, and what made the model answer as
it did.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Inputs
from .features import Features

COLUMNS, HEIGHT = 3, 0.85  # examples beside each other in a figure, and inches of each
GRID = 8  # features are the squares of a grid of at most this many rows and columns


def features(of: Features) -> tuple[list[str], dict[str, NDArray[np.int64]]]:
    """Names of the squares of a grid, and the number of the square that each element [C, H, W] lies
    in.
    """
    rows, columns = min(GRID, of.height), min(GRID, of.width)
    row = np.arange(of.height) * rows // of.height
    column = np.arange(of.width) * columns // of.width
    square = row[:, None] * columns + column
    names = [f"row {i // columns + 1}, column {i % columns + 1}" for i in range(rows * columns)]
    return names, {"image": np.repeat(square[None], of.channels, axis=0)}


def reference(inputs: Inputs, of: Features) -> Inputs:
    """The mean picture [1, C, H, W], which attributions compare with."""
    return {"image": inputs["image"].mean(axis=0, keepdims=True).astype(np.float32)}


def example(axes: Any, inputs: Inputs, i: int, of: Features, before: Inputs | None = None) -> None:
    """Draws example i, beside what it was `before` a change."""
    for place, each in enumerate([inputs] if before is None else [before, inputs]):
        picture = np.moveaxis(each["image"][i], 0, -1).clip(0, 255).astype(np.uint8).squeeze()
        _draw(axes, picture, place, "gray_r" if of.channels == 1 else None, 0, 255)


def explained(axes: Any, inputs: Inputs, i: int, added: Any, of: Features) -> None:
    """Draws example i beside what its elements added: red spoke for the answer, blue against it."""
    example(axes, inputs, i, of)
    heat = added.values["image"][i].sum(axis=0)
    limit = np.abs(heat).max() or 1.0
    _draw(axes, heat, 1, "bwr", -limit, limit)


def _draw(
    axes: Any, picture: NDArray[Any], place: int, colours: str | None, low: float, high: float
) -> None:
    """Draws a picture [H, W, ...] into the axes, right of `place` others."""
    height, width = picture.shape[:2]
    left = place * 1.08 * width
    extent = (left, left + width, 0, height)
    axes.imshow(picture, extent=extent, cmap=colours, vmin=low, vmax=high)
    axes.set(xlim=(0, left + width), ylim=(0, height))
    axes.set_axis_off()


def importance(figure: Any, added: Any, of: Features) -> None:
    """Heat map of how much each place of a picture added, over all rows."""
    axes = figure.subplots()
    heat = np.abs(added.values["image"].sum(axis=1)).mean(axis=0)
    picture = axes.imshow(heat, cmap="Reds", vmin=0)
    axes.set_axis_off()
    figure.colorbar(picture, ax=axes, label="mean size of what a place added")


def head(rows: Any, of: Features) -> Any:
    """The first raw rows as a table: pictures are not shown as one."""
    return None


def column_plots(*_: Any) -> dict[str, Any]:
    """Drawers of further plots by name: pictures have none."""
    return {}

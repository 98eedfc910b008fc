"""How the report shows pictures: an example, what changed in it, and what made the model answer as
it did.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..personal import HIDDEN
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
    return {"image": inputs["image"].mean(axis=0, keepdims=True)}


def example(axes: Any, inputs: Inputs, i: int, of: Features, before: Inputs | None = None) -> None:
    """Draws example i, beside what it was `before` a change."""
    axes.set_axis_off()
    if of.personal.get("image", "keep") != "keep":
        axes.text(0, 0, HIDDEN)
        return
    pair = [inputs] if before is None else [before, inputs]
    pixels = np.concatenate([each["image"][i] for each in pair], axis=-1)
    picture = np.moveaxis(pixels, 0, -1).clip(0, 255).astype(np.uint8)
    axes.imshow(picture.squeeze(), cmap="gray_r" if of.channels == 1 else None, vmin=0, vmax=255)


def explained(axes: Any, inputs: Inputs, i: int, added: Any, of: Features) -> None:
    """Draws example i beside what its elements added: red spoke for the answer, blue against it."""
    heat = added.values["image"][i].sum(axis=0)
    limit, right = np.abs(heat).max() or 1.0, (of.width, 2 * of.width, of.height, 0)
    example(axes, inputs, i, of)
    axes.imshow(heat, "bwr", vmin=-limit, vmax=limit, extent=right)
    axes.set_xlim(0, 2 * of.width)


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

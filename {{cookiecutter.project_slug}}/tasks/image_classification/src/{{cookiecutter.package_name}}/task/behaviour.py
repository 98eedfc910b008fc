"""What you demand of the model beyond accuracy, in a few lines each: perturbations, invariances,
directions, slices.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from ..settings import Data
from ..types import Behaviour, Change, Direction, Inputs

if TYPE_CHECKING:
    from ..types import Examples


def _image(
    change: Callable[[NDArray[np.float32], int, Generator], NDArray[np.floating]],
) -> Callable[[Inputs, int, Generator], Inputs]:
    """A perturbation of pictures [n, C, H, W] in 0..255, clipped to that range."""
    return lambda inputs, severity, rng: {
        "image": change(inputs["image"], severity, rng).clip(0, 255).astype(np.float32)
    }


def _salt_and_pepper(x: NDArray[np.float32], severity: int, rng: Generator) -> NDArray[np.floating]:
    hit = rng.random(x.shape) < 0.02 * severity
    return np.where(hit, rng.choice([0.0, 255.0], x.shape), x)


def _erase(x: NDArray[np.float32], severity: int, rng: Generator) -> NDArray[np.float32]:
    """Empties one square of each picture, up to a third of its side."""
    n, _, height, width = x.shape
    side = max(1, round(min(height, width) * severity / 15))
    top, left = (
        rng.integers(0, height - side + 1, (n, 1, 1, 1)),
        rng.integers(0, width - side + 1, (n, 1, 1, 1)),
    )
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    return np.where(
        (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side), 0, x
    )


# name: change at severity 1 to 5
PERTURBATIONS: dict[str, Callable[[Inputs, int, Generator], Inputs]] = {
    "noise": _image(lambda x, s, rng: x + rng.normal(0, 12 * s, x.shape)),
    "salt_and_pepper": _image(_salt_and_pepper),
    "blur": _image(lambda x, s, rng: ndimage.gaussian_filter(x, (0, 0, 0.15 * s, 0.15 * s))),
    "brightness": _image(lambda x, s, rng: x + 10 * s),
    "contrast": _image(
        lambda x, s, rng: x.mean(axis=(2, 3), keepdims=True) * 0.12 * s + x * (1 - 0.12 * s)
    ),
    "fade": _image(lambda x, s, rng: x * (1 - 0.14 * s)),
    "rotate": _image(
        lambda x, s, rng: ndimage.rotate(
            x, rng.choice([-1, 1]) * 5 * s, axes=(3, 2), reshape=False, order=1
        )
    ),
    "erase": _image(_erase),
}

# name: a change that must not change the predicted class
INVARIANCES: dict[str, Change] = {
    "a fifth less ink": lambda inputs: {"image": inputs["image"] * np.float32(0.8)},
    "a slightly grey background": lambda inputs: {"image": np.maximum(inputs["image"], 12)},
    "two degrees of tilt": lambda inputs: {
        "image": ndimage.rotate(inputs["image"], 2, axes=(3, 2), reshape=False, order=1)
    },
}


def _blend(share: float) -> Callable[[Inputs, Inputs], Inputs]:
    return lambda a, b: {
        "image": ((1 - share) * a["image"] + share * b["image"]).astype(np.float32)
    }


# name: (less, more) of another class laid over an example; that class's probability must not fall
DIRECTIONS = {
    "a quarter against three quarters of another class laid over": Direction(
        _blend(0.25), _blend(0.75)
    ),
    "a tenth against nine tenths of another class laid over": Direction(_blend(0.1), _blend(0.9)),
}


def _marks(examples: "Examples") -> dict[str, NDArray[Any]]:
    """Numbers per picture, each [n]."""
    image = examples.inputs["image"] / 255
    return {"ink": image.mean(axis=(1, 2, 3)), "contrast": image.std(axis=(1, 2, 3))}


def declare(data: Data) -> Behaviour:
    """What is demanded of a model of these data; change it with the data."""

    def slices(examples: "Examples") -> dict[str, NDArray[np.bool_]]:
        ink = _marks(examples)["ink"]
        thin, bold = np.quantile(ink, [0.25, 0.75])
        classes = {f"class {name}": examples.label == i for i, name in enumerate(data.labels)}
        return {**classes, "thin writing": ink <= thin, "bold writing": ink >= bold}

    ranges = {"image": (0.0, 255.0)}
    return Behaviour(PERTURBATIONS, ranges, INVARIANCES, DIRECTIONS, slices, _marks)

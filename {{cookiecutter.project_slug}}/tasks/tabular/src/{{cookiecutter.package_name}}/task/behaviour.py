"""What you demand of the model beyond accuracy: perturbations, invariances, directions and slices.

Perturbations follow from the columns alone. The rest names columns, so it is declared per data set:
add yours below.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..settings import Data
from ..types import Behaviour, Change, Direction, Inputs
from .features import Features

if TYPE_CHECKING:
    from ..types import Examples

Numbers = NDArray[np.floating]


@dataclass(frozen=True)
class Expected:
    """Demands on one data set.

    `irrelevant` categorical columns, such as a sensitive attribute: swapping the categories must
    not change the answer. `rising` numeric columns with a step: where it is added, the value, or
    the last label's probability, must not fall. `bands`: numeric columns with the values that cut
    them into subgroups.
    """

    irrelevant: list[str] = field(default_factory=list)
    rising: dict[str, float] = field(default_factory=dict)
    bands: dict[str, list[float]] = field(default_factory=dict)


EXPECTED = {
    "diabetes": Expected(
        irrelevant=["sex"],
        rising={"bmi": 5, "bp": 15, "ltg": 0.5},
        bands={"age": [40, 60], "bmi": [25, 30]},
    ),
    "breast_cancer": Expected(
        rising={"worst_radius": 4, "worst_concave_points": 0.05},
        bands={"mean_radius": [12, 15], "mean_texture": [16, 22]},
    ),
}


def declare(data: Data) -> Behaviour:
    """What is demanded of a model of these data; a data set that EXPECTED does not name has
    perturbations only.
    """
    features, expected = Features.model_validate(data.features), EXPECTED.get(data.name, Expected())
    unknown = {*expected.rising, *expected.bands} - {*features.numeric} | {*expected.irrelevant} - {
        *features.categorical
    }
    if unknown:
        raise ValueError(
            f"task/behaviour.py names columns of {data.name} that do not exist: {sorted(unknown)}"
        )
    ranges = {"numeric": (features.low, features.high)} if features.numbers else {}
    invariances: dict[str, Change] = {
        f"{name} swapped": _swapped(features, name) for name in expected.irrelevant
    }
    if features.numeric:
        invariances["numbers rounded to a hundredth of their range"] = _numbers(
            features, _rounded(0.01)
        )
    label = data.labels[-1] if data.labels else None
    directions = {
        f"{name} higher by {step:g}": _rises(features, name, step, label)
        for name, step in expected.rising.items()
    }
    return Behaviour(
        perturbations(features),
        ranges,
        invariances,
        directions,
        lambda examples: slices(examples, features, data.labels, expected.bands),
        lambda examples: {
            name: examples.rows[name].to_numpy()
            for name in [*features.numeric, *features.categorical]
        },
    )


def _numbers(features: Features, change: Callable[[Numbers, Numbers], Numbers]) -> Change:
    """A change of numbers [n, d], given them and the width [d] of their ranges; gaps stay, none
    leaves its range.
    """
    low, high, centre = features.low, features.high, features.centre

    def changed(inputs: Inputs) -> Inputs:
        numbers = change(inputs["numeric"] + centre, high - low) - centre
        numeric = np.clip(numbers, low, high) * (1 - inputs["missing"])
        return {**inputs, "numeric": numeric.astype(np.float32)}

    return changed


def _rounded(share: float) -> Callable[[Numbers, Numbers], Numbers]:
    return lambda x, width: np.round(x / (share * width)) * (share * width)


def _swapped(features: Features, name: str) -> Change:
    """Every category of the column becomes the next one."""
    block = features.blocks[name]

    def changed(inputs: Inputs) -> Inputs:
        one_hot = inputs["categorical"].copy()
        one_hot[:, block] = np.roll(one_hot[:, block], 1, axis=1)
        return {**inputs, "categorical": one_hot}

    return changed


def _rises(features: Features, name: str, step: float, label: str | None) -> Direction:
    added = np.where(np.array([*features.numbers]) == name, step, 0)
    more = _numbers(features, lambda x, width: x + added)
    return Direction(lambda inputs, partner: inputs, lambda inputs, partner: more(inputs), label)


def perturbations(features: Features) -> dict[str, Callable[[Inputs, int, Generator], Inputs]]:
    """Changes at severity 1 to 5 in shares of each column's range; numbers stay inside it, as the
    server demands.
    """
    found: dict[str, Callable[[Inputs, int, Generator], Inputs]] = {}

    def add(name: str, change: Callable[[Numbers, Numbers, int, Generator], Numbers]) -> None:
        found[name] = lambda inputs, s, rng: _numbers(features, lambda x, w: change(x, w, s, rng))(
            inputs
        )

    if features.numeric:
        add("noise", lambda x, w, s, rng: x + rng.normal(0, 0.01 * s, x.shape) * w)
        add("shift", lambda x, w, s, rng: x + 0.01 * s * w)  # an instrument that reads too high
        add("scale", lambda x, w, s, rng: x * (1 + 0.02 * s))
        add("coarse", lambda x, w, s, rng: _rounded(0.03 * s)(x, w))
        add(
            "slipped point",
            lambda x, w, s, rng: np.where(rng.random(x.shape) < 0.005 * s, x * 10, x),
        )
        add(
            "mixed up rows",
            lambda x, w, s, rng: np.where(
                rng.random(x.shape) < 0.03 * s, x[rng.permutation(len(x))], x
            ),
        )
    if features.may_miss.any():
        found["missing"] = lambda inputs, s, rng: _dropped(inputs, features, 0.06 * s, rng)
    if features.categorical:
        found["wrong category"] = lambda inputs, s, rng: _miscoded(inputs, features, 0.05 * s, rng)
    return found


def _dropped(inputs: Inputs, features: Features, share: float, rng: Generator) -> Inputs:
    """Leaves out this share of the numbers that may be missing."""
    dropped = (rng.random(inputs["numeric"].shape) < share) & features.may_miss
    missing = np.maximum(inputs["missing"], dropped).astype(np.float32)
    return {**inputs, "numeric": inputs["numeric"] * (1 - missing), "missing": missing}


def _miscoded(inputs: Inputs, features: Features, share: float, rng: Generator) -> Inputs:
    """Replaces this share of the categories by the next one of their column."""
    found = inputs
    for name, block in features.blocks.items():
        hit = rng.random((len(inputs["categorical"]), 1)) < share
        one_hot = found["categorical"].copy()
        one_hot[:, block] = np.where(
            hit, _swapped(features, name)(found)["categorical"][:, block], one_hot[:, block]
        )
        found = {**found, "categorical": one_hot}
    return found


def slices(
    examples: "Examples", features: Features, labels: list[str], bands: dict[str, list[float]]
) -> dict[str, NDArray[np.bool_]]:
    """Subgroups [n]: each class, each category, each declared band of a number, and rows that lack
    a value.
    """
    rows = examples.rows
    found: dict[str, Any] = {f"class {name}": examples.label == i for i, name in enumerate(labels)}
    found |= {
        f"{name} {v}": rows[name].to_numpy() == v
        for name, values in features.categorical.items()
        for v in values
    }
    for name, cuts in bands.items():
        values, edges = rows[name].to_numpy(float), [-np.inf, *cuts, np.inf]
        for low, high in itertools.pairwise(edges):
            inside = (values >= low) & (values < high)
            text = (
                f"under {high:g}"
                if low == -np.inf
                else f"from {low:g}" + (f" to {high:g}" if high < np.inf else "")
            )
            found[f"{name} {text}"] = inside
    if features.optional:
        found["a value missing"] = rows[features.names].isna().any(axis=1).to_numpy()
    return found

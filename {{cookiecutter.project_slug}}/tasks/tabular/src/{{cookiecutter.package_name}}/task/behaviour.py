"""What you demand of the model beyond accuracy: perturbations, invariances, directions and slices.

Perturbations follow from the columns alone. The rest names columns, so it is declared per data set:
add yours below.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..personal import shown
from ..settings import Data
from ..types import Behaviour, Change, Direction, Inputs
from .features import Features

if TYPE_CHECKING:
    from ..types import Examples

Numbers = NDArray[np.floating]
Perturbation = Callable[[Inputs, int, Generator], Inputs]


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
    unknown = {*expected.rising, *expected.bands} - {*features.numeric}
    unknown |= {*expected.irrelevant} - {*features.categorical}
    if unknown:
        raise ValueError(
            f"task/behaviour.py names columns of {data.name} that do not exist: {sorted(unknown)}"
        )
    label = data.labels[-1] if data.labels else None
    invariances: dict[str, Change] = {
        f"{name} swapped": partial(_recoded, features=features, names=[name], share=1)
        for name in expected.irrelevant
    }
    if features.numeric:
        rounded = _numbers(features, lambda x: _rounded(x, 0.01 * np.ptp(features.ranges, axis=0)))
        invariances["numbers rounded to a hundredth of their range"] = rounded
    directions = {
        f"{name} higher by {step:g}": _rises(features, name, step, label)
        for name, step in expected.rising.items()
    }
    return Behaviour(
        perturbations(features),
        {"numeric": tuple(features.ranges)} if features.numbers else {},
        invariances,
        directions,
        lambda examples: slices(examples, features, data.labels, expected.bands),
        lambda examples: {
            name: examples.rows[name].to_numpy()
            for name in [*features.numeric, *features.categorical]
        },
    )


def _numbers(features: Features, change: Callable[..., Numbers]) -> Callable[..., Inputs]:
    """A change of numbers [n, d], given them and what else it needs; gaps stay, none leaves its
    range.
    """
    centre = features.centre

    def changed(inputs: Inputs, *options: Any) -> Inputs:
        numbers = change(inputs["numeric"] + centre, *options) - centre
        moved = np.clip(numbers, *features.ranges)
        return {**inputs, "numeric": (moved * (1 - inputs["missing"])).astype(np.float32)}

    return changed


def _rounded(numbers: Numbers, step: Numbers) -> Numbers:
    return np.round(numbers / step) * step


def _rises(features: Features, name: str, step: float, label: str | None) -> Direction:
    added = np.where(np.array([*features.numbers]) == name, step, 0)
    more = _numbers(features, lambda x: x + added)
    return Direction(lambda inputs, partner: inputs, lambda inputs, partner: more(inputs), label)


def perturbations(features: Features) -> dict[str, Perturbation]:
    """Changes at severity 1 to 5 in shares of each column's range; numbers stay inside it, as the
    server demands.
    """
    width = np.ptp(features.ranges, axis=0)
    numeric: dict[str, Callable[[Numbers, int, Generator], Numbers]] = {
        "noise": lambda x, s, rng: x + rng.normal(0, 0.01 * s, x.shape) * width,
        "shift": lambda x, s, rng: x + 0.01 * s * width,  # an instrument that reads too high
        "scale": lambda x, s, rng: x * (1 + 0.02 * s),
        "coarse": lambda x, s, rng: _rounded(x, 0.03 * s * width),
        "slipped point": lambda x, s, rng: np.where(rng.random(x.shape) < 0.005 * s, x * 10, x),
        "mixed up rows": lambda x, s, rng: np.where(
            rng.random(x.shape) < 0.03 * s, x[rng.permutation(len(x))], x
        ),
    }
    changes: dict[str, Perturbation] = {}
    if features.numeric:
        changes = {name: _numbers(features, change) for name, change in numeric.items()}
    if features.may_miss.any():
        changes["missing"] = lambda inputs, s, rng: _dropped(inputs, features, 0.06 * s, rng)
    if features.categorical:
        names = list(features.categorical)
        changes["wrong category"] = lambda inputs, s, rng: _recoded(
            inputs, features, names, 0.05 * s, rng
        )
    return changes


def _dropped(inputs: Inputs, features: Features, share: float, rng: Generator) -> Inputs:
    """Leaves out this share of the numbers that may be missing."""
    dropped = (rng.random(inputs["numeric"].shape) < share) & features.may_miss
    missing = np.maximum(inputs["missing"], dropped).astype(np.float32)
    return {**inputs, "numeric": inputs["numeric"] * (1 - missing), "missing": missing}


def _recoded(
    inputs: Inputs, features: Features, names: list[str], share: float, rng: Generator | None = None
) -> Inputs:
    """Replaces this share of the columns' categories by the next one."""
    rng, one_hot = rng or np.random.default_rng(0), inputs["categorical"].copy()
    for name in names:
        block = one_hot[:, features.blocks[name]]
        block[:] = np.where(rng.random((len(block), 1)) < share, np.roll(block, 1, axis=1), block)
    return {**inputs, "categorical": one_hot}


def slices(
    examples: "Examples", features: Features, labels: list[str], bands: dict[str, list[float]]
) -> dict[str, NDArray[np.bool_]]:
    """Subgroups [n]: each class, each category, each declared band of a number, and rows that lack
    a value.
    """
    rows = examples.rows
    found: dict[str, Any] = {f"class {name}": examples.label == i for i, name in enumerate(labels)}
    for name, texts in features.categorical.items():
        if features.personal.get(name) != "drop":
            say = partial(shown, name=name, marks=features.personal)
            found |= {f"{name} {say(text)}": rows[name].to_numpy() == text for text in texts}
    for name, cuts in bands.items():
        values = rows[name].to_numpy()
        found[f"{name} under {cuts[0]:g}"] = values < cuts[0]
        for low, high in itertools.pairwise(cuts):
            found[f"{name} from {low:g} to {high:g}"] = (values >= low) & (values < high)
        found[f"{name} from {cuts[-1]:g}"] = values >= cuts[-1]
    if features.optional:
        found["a value missing"] = rows[features.names].isna().any(axis=1).to_numpy()
    return found

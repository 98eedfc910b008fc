"""What the methods share: what a user declares about the model's behaviour, and one line of the
gate's table.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..types import (
        Examples,  # which imports torch, and a client that only corrupts rows needs none
    )

Outcome = Literal["pass", "fail", "cannot tell", "not applicable"]
Inputs = dict[str, NDArray[Any]]
Change = Callable[[Inputs], Inputs]


@dataclass(frozen=True)
class Direction:
    """Two changes of an example, each of (inputs, inputs of a partner), of which `more` must not be
    answered lower.

    Compared are predicted values, or probabilities of `label`; None is the class of the partner,
    which is another one.
    """

    less: Callable[[Inputs, Inputs], Inputs]
    more: Callable[[Inputs, Inputs], Inputs]
    label: str | None = None


@dataclass(frozen=True)
class Behaviour:
    """What you demand beyond a good score; a method for which nothing is declared is not
    applicable.

    `perturbations` take a severity of 1 to 5; `ranges` hold the lowest and highest value of each
    input that an attack may move; `slices` are subgroups [n]; in `columns` [n], numbers or text,
    further subgroups are searched.
    """

    perturbations: dict[str, Callable[[Inputs, int, Generator], Inputs]]
    ranges: dict[str, tuple[Any, Any]]
    invariances: dict[str, Change]
    directions: dict[str, Direction]
    slices: "Callable[[Examples], dict[str, NDArray[np.bool_]]]"
    columns: "Callable[[Examples], dict[str, NDArray[Any]]]"


@dataclass(frozen=True)
class Verdict:
    """What a method found: its number against its threshold, and why that passes or fails, in
    words.
    """

    method: str
    title: str
    outcome: Outcome
    number: float | None
    threshold: float | None
    why: str
    details: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return asdict(self)


def outcome(passed: bool) -> Outcome:
    return "pass" if passed else "fail"


def not_declared(method: str, title: str) -> Verdict:
    return Verdict(
        method,
        title,
        "not applicable",
        None,
        None,
        "nothing is declared in evaluation/behaviour.py",
    )

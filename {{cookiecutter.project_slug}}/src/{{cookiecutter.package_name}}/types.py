"""Plain types that `task/` and the stages share: what a model answers, how it decides, what you
demand of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .settings import Strict

if TYPE_CHECKING:
    import pandas as pd  # which the server does not have

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]
Labels = NDArray[Any]
"""[n]: an index of a class, or a value."""
Inputs = dict[str, NDArray[Any]]
"""Model inputs by name, each [n, ...]."""
Change = Callable[[Inputs], Inputs]
MANY = 15  # classes: numbers in the cells of their table would overlap


@dataclass(frozen=True)
class Examples:
    """Model inputs by name, each [n, ...]; label [n], index of a class or value; and the rows they
    come from.
    """

    inputs: Inputs
    label: Labels
    rows: "pd.DataFrame"

    def __len__(self) -> int:
        return len(self.label)


class Rule(Strict):
    """How raw outputs become answers: fitted on validation and calibration data, stored with the
    model.

    `temperature` divides logits, or multiplies the predicted standard deviation. `threshold` is the
    probability of the second class from which it is answered (binary). `costs` [k, k] are those of
    answering the column when the row is true; null where all errors cost the same. `shift` is added
    to a predicted value, in its standard deviations, where being too low costs more than being too
    high. Below `abstain_below` confidence a person should decide; null: never.
    """

    temperature: float = 1.0
    threshold: float | None = None
    costs: list[list[float]] | None = None
    shift: float = 0.0
    abstain_below: float | None = None
    conformal_quantile: float = 1.0

    def without_costs(self) -> "Rule":
        """The rule that answers what is most probable, by which models are compared."""
        return self.model_copy(update={"threshold": None, "costs": None, "shift": 0.0})

    def unsure(self, confidence: Floats) -> Flags:
        """[n]: whether a person should decide."""
        return confidence < (-np.inf if self.abstain_below is None else self.abstain_below)


@dataclass(frozen=True)
class Decisions:
    """Answers among classes: probabilities [n, k]; label [n] index; confidence [n]; abstain [n];
    sets [n, k].
    """

    probabilities: Floats
    label: NDArray[np.int64]
    confidence: Floats
    abstain: Flags
    sets: Flags


@dataclass(frozen=True)
class Estimates:
    """Answers on a scale, in the label's unit: value [n]; deviation [n], the predicted standard
    deviation; intervals [n, 2]; confidence [n] is minus the deviation, so that more is surer;
    abstain [n].
    """

    value: Floats
    deviation: Floats
    confidence: Floats
    abstain: Flags
    intervals: Floats


Answers = Decisions | Estimates


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
    slices: Callable[[Examples], dict[str, Flags]]
    columns: Callable[[Examples], dict[str, NDArray[Any]]]


def names_on_axis(labels: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Names of classes that overlap nothing below an axis, and how they are written there."""
    long, many = len("".join(labels)) > 30, len(labels) > MANY
    names = ["\n".join(wrap(name, 24)[: 1 if many else 2]) for name in labels]
    return names, {"rotation": 90 if long else 0, "fontsize": 6 if many else 8}

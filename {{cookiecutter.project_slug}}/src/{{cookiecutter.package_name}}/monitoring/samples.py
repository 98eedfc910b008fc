"""Answers as arrays: the reference in a bundle, a window of the prediction store, and what a test
of one against the other found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modeling import kinds
from ..packaging.bundle import Bundle, Card
from ..types import Floats

Row = dict[str, Any]  # of the prediction store, with "feedback"
# Cohen 1988, for w; used for D and MMD as a guide.
STRENGTH = {"strongly": 0.5, "clearly": 0.3, "slightly": 0.0}


@dataclass(frozen=True)
class Result:
    """One test. `p` is raw, `adjusted` is corrected over the whole family; `effect` grows from 0
    (equal).
    """

    name: str
    method: str
    statistic: float
    p: float
    effect: float
    effect_name: str
    detail: str = ""
    adjusted: float = 1.0
    alarm: bool = False

    @property
    def words(self) -> str:
        """The verdict as a person would say it."""
        if not self.alarm:
            return "no change seen"
        return (
            next(word for word, limit in STRENGTH.items() if abs(self.effect) >= limit) + " changed"
        )


@dataclass(frozen=True)
class Sample:
    """Answers on n rows by name, signals by name, each [n], and the embedding [n, e] where the
    model has one.

    The answers are "probabilities" [n, k] and "label" [n] for classes, "value" [n] and "deviation"
    [n] for values. A signal that is not a number is missing.
    """

    answers: Mapping[str, NDArray[Any]]
    embedding: Floats | None
    signals: Mapping[str, Floats]


def reference_sample(bundle: Bundle) -> Sample:
    """The reference arrays of a bundle as a sample."""
    arrays = bundle.reference
    columns = zip(arrays["signal_names"], arrays["signals"].T, strict=True)
    signals = {str(name): values.astype(np.float64) for name, values in columns}
    answers = bundle.kind.reference_answers(arrays, bundle.card.decision)
    return Sample(answers, arrays.get("embedding"), signals)


def stored_sample(rows: list[Row], card: Card) -> Sample:
    """The stored outputs of the rows as arrays; an embedding only where every row has one."""
    stored = [row["signals"] for row in rows]
    embeddings = [outputs.get("embedding") for outputs in stored]
    names = set.intersection(*(set(outputs["signals"]) for outputs in stored))
    signals = {
        name: np.array([outputs["signals"][name] for outputs in stored], np.float64)
        for name in sorted(names)
    }
    embedding = None if None in embeddings else np.array(embeddings, np.float64)
    return Sample(kinds.of(card.kind).stored_answers(rows, card.labels), embedding, signals)

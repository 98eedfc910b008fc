"""Answers as arrays: the reference in a bundle, and a window of the prediction store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modeling.kinds.classes import decide as classify
from ..packaging.bundle import Bundle

Floats = NDArray[np.floating]


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
    answers: dict[str, NDArray[Any]]
    arrays, rule = bundle.reference, bundle.card.decision
    names = [str(name) for name in arrays["signal_names"]]
    signals = {name: arrays["signals"][:, j].astype(np.float64) for j, name in enumerate(names)}
    if bundle.card.kind == "regression":
        answers = {name: arrays[name].astype(np.float64) for name in ("value", "deviation")}
    else:
        logits = np.log(np.clip(arrays["probabilities"], 1e-12, None))
        label = classify(
            logits, rule.model_copy(update={"temperature": 1.0})
        ).label  # it is in the probabilities
        answers = {"probabilities": arrays["probabilities"], "label": label}
    return Sample(answers, arrays.get("embedding"), signals)


def stored_sample(rows: Sequence[Mapping[str, Any]], labels: list[str]) -> Sample:
    """The stored outputs of the rows as arrays; an embedding only where every row has one."""
    answers: dict[str, NDArray[Any]]
    stored = [row["signals"] for row in rows]
    embeddings = [s.get("embedding") for s in stored]
    names = set.intersection(*(set(s["signals"]) for s in stored))
    if labels:
        answers = {
            "probabilities": np.array([s["probabilities"] for s in stored], dtype=np.float64),
            "label": np.array([labels.index(row["label"]) for row in rows]),
        }
    else:
        answers = {
            "value": np.array([row["label"] for row in rows], dtype=np.float64),
            "deviation": np.array([s["deviation"] for s in stored], dtype=np.float64),
        }
    return Sample(
        answers=answers,
        embedding=None
        if any(e is None for e in embeddings)
        else np.array(embeddings, dtype=np.float64),
        signals={
            name: np.array([s["signals"][name] for s in stored], dtype=np.float64)
            for name in sorted(names)
        },
    )

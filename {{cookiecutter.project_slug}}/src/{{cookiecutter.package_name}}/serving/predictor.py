"""The champion in live/, from request items to answers, and its replacement while requests are
answered.

The order is setup (load, smoke-test), decode (items to tensors), predict (tensors to answers),
encode (to JSON).
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..packaging.bundle import Bundle
from ..task.features import Features, Instance, encode, instance_to_row, signals
from ..types import Answers, Estimates

CURRENT = "current.json"
Inputs = dict[str, NDArray[np.float32]]
SMOKE_TOLERANCE = 1e-3  # of a raw output, or of the labels' standard deviation


@dataclass(frozen=True)
class Scored:
    """Answers on n items with the raw outputs and the signals they came with."""

    answers: Answers
    outputs: dict[str, NDArray[np.float32]]
    signals: dict[str, NDArray[np.float64]]

    def stored(self, i: int) -> dict[str, Any]:
        """What the monitor will want to know of item i."""
        embedding, answers = self.outputs.get("embedding"), self.answers
        if isinstance(answers, Estimates):
            answer = {
                "interval": answers.intervals[i].tolist(),
                "deviation": float(answers.deviation[i]),
            }
        else:
            answer = {"probabilities": answers.probabilities[i].round(6).tolist()}
        return {
            **answer,
            "embedding": None
            if embedding is None
            else embedding[i].astype(np.float64).round(6).tolist(),
            "signals": {
                k: None if np.isnan(v[i]) else float(v[i]) for k, v in self.signals.items()
            },
        }


@dataclass(frozen=True)
class Champion:
    """One verified bundle under its registry version; never changed, so a request keeps the one it
    began with.

    `tenths` [9] cut the reference's predicted values into ten equal parts; empty for classes.
    """

    version: str
    bundle: Bundle
    features: Features
    tenths: NDArray[np.floating]

    def decode(self, instances: Sequence[Instance]) -> Inputs:
        """Model inputs of n checked items; n is at least 1."""
        rows = [instance_to_row(instance) for instance in instances]
        names = dict.fromkeys(
            name for row in rows for name in row
        )  # a column that may be missing may be left out
        return encode({name: [row.get(name) for row in rows] for name in names}, self.features)

    def predict(self, inputs: Inputs) -> Scored:
        """Answers on model inputs. Raises ValueError where finite inputs overflow inside the model."""
        outputs = self.bundle.infer(inputs)
        with np.errstate(over="ignore"):  # an infinite deviation is found by the next line
            answers = self.bundle.decide(outputs["raw"])
        numbers = [
            outputs["raw"],
            answers.intervals if isinstance(answers, Estimates) else answers.probabilities,
        ]
        if not all(np.isfinite(values).all() for values in numbers):
            raise ValueError(
                "the values are so large that the model's answer is not a finite number"
            )
        return Scored(answers, outputs, signals(inputs, self.features))

    def labels(self, answers: Answers) -> list[str] | list[float]:
        """What was answered, [n]: names of classes, or values."""
        if isinstance(answers, Estimates):
            return [float(value) for value in answers.value]
        return [self.bundle.card.labels[i] for i in answers.label]

    def encode(self, answers: Answers) -> list[dict[str, Any]]:
        """Answers as JSON items, still without their ids."""
        abstain = answers.abstain.tolist()
        if isinstance(answers, Estimates):
            columns = (
                answers.value.tolist(),
                answers.intervals.tolist(),
                answers.deviation.tolist(),
                abstain,
            )
            names = ("value", "interval", "deviation", "abstain")
            return [dict(zip(names, item, strict=True)) for item in zip(*columns, strict=True)]
        labels = self.bundle.card.labels
        return [
            {
                "label": labels[answers.label[i]],
                "confidence": float(answers.confidence[i]),
                "probabilities": dict(zip(labels, answers.probabilities[i].tolist(), strict=True)),
                "abstain": abstain[i],
                "set": [
                    label for label, inside in zip(labels, answers.sets[i], strict=True) if inside
                ],
            }
            for i in range(len(answers.label))
        ]

    def smoke(self) -> None:
        """Answers the bundle's own examples. Raises ValueError if an answer is not the recorded
        one.
        """
        examples, tolerance = self.bundle.examples, SMOKE_TOLERANCE * self.bundle.card.label_scale
        instances = [Instance.model_validate(item) for item in examples["instances"]]
        raw, recorded = (
            self.predict(self.decode(instances)).outputs["raw"],
            np.asarray(examples["raw"]),
        )
        if recorded.shape != raw.shape or not np.allclose(
            recorded, raw, rtol=SMOKE_TOLERANCE, atol=tolerance
        ):
            raise ValueError(
                f"{self.bundle.folder} does not answer its own examples as recorded: build the bundle again"
            )


def load(folder: Path, version: str) -> Champion:
    """A bundle, verified and smoke-tested, ready to answer. Raises ValueError."""
    bundle = Bundle.load(folder)
    values = bundle.reference["value"] if bundle.card.kind == "regression" else None
    tenths = np.zeros(0) if values is None else np.quantile(values, np.arange(1, 10) / 10)
    champion = Champion(version, bundle, Features.model_validate(bundle.card.features), tenths)
    champion.smoke()
    return champion


def load_live(live: Path) -> Champion:
    """The champion that live/current.json names. Raises ValueError if there is none or it is not
    the one promised.
    """
    current = live / CURRENT
    if not current.is_file():
        raise ValueError(f"no model to serve in {live}: run `make pipeline` first")
    try:
        entry = json.loads(current.read_text(encoding="utf-8"))["champion"]
        version, folder, identity = entry["version"], live / entry["path"], entry["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{current} is damaged: run the verb `pull` again") from error
    champion = load(folder, version)
    if champion.bundle.identity != identity:
        raise ValueError(
            f"{folder} is not the bundle that {current} names: run the verb `pull` again"
        )
    return champion


class Predictor:
    """Holds the champion and replaces it when live/current.json changes; a broken newcomer changes
    nothing.
    """

    def __init__(self, live: Path, log: logging.Logger, loaded: Callable[[Champion], None]) -> None:
        self.champion: Champion | None = None
        self._live, self._log, self._loaded = live, log, loaded
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether current.json is another file than the one last looked at; costs one `stat`."""
        stamp = self._stamp()
        return stamp is not None and stamp != self._seen

    def setup(self) -> None:
        """Loads what current.json names now. A failure is one log line, and the old champion goes
        on answering.
        """
        self._seen = self._stamp()  # before reading: a change in between is seen next time
        try:
            champion = load_live(self._live)
        except (
            Exception
        ) as error:  # anything may be wrong with a bundle, and none of it may stop the server
            keeps = f"; {self.champion.version} goes on answering" if self.champion else ""
            self._log.error("model not loaded: %s%s", " ".join(str(error).split()), keeps)
            return
        self.champion = champion
        self._loaded(champion)
        self._log.info(
            "model %s loaded",
            champion.version,
            extra={"fields": {"identity": champion.bundle.identity}},
        )

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = (self._live / CURRENT).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

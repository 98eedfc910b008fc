"""The champion in live/, from request items to answers, and its replacement while requests are
answered.

The order is setup (load, smoke-test), decode (items to tensors), predict (tensors to answers),
encode (to JSON).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..packaging import bundle as bundles
from ..packaging.bundle import Bundle
from ..task.features import Features, Instance, encode, instance_to_row, signals
from ..types import Answers

Inputs = dict[str, NDArray[np.float32]]
SMOKE_TOLERANCE = 1e-3  # of a raw output, or of the labels' standard deviation


@dataclass(frozen=True)
class Scored:
    """Answers on n items with the raw outputs and the signals they came with."""

    answers: Answers
    outputs: dict[str, NDArray[np.float32]]
    signals: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Champion:
    """One verified bundle under its registry version; never changed, so a request keeps the one it
    began with.
    """

    version: str
    bundle: Bundle

    @cached_property
    def features(self) -> Features:
        return Features.model_validate(self.bundle.card.features)

    def decode(self, instances: Sequence[Instance]) -> Inputs:
        """Model inputs of n checked items; n is at least 1."""
        rows = [instance_to_row(instance) for instance in instances]
        # A column that may be missing may be left out.
        names = dict.fromkeys(name for row in rows for name in row)
        return encode({name: [row.get(name) for row in rows] for name in names}, self.features)

    def predict(self, inputs: Inputs) -> Scored:
        """Answers on model inputs. Raises ValueError where finite inputs overflow in the model."""
        outputs = self.bundle.infer(inputs)
        with np.errstate(over="ignore"):  # an infinite deviation is found by the next lines
            answers = self.bundle.decide(outputs["raw"])
        for values in (outputs["raw"], *self.bundle.kind.tensors(answers).values()):
            if not np.isfinite(values).all():
                raise ValueError(
                    "the values are so large that the model's answer is not a finite number"
                )
        return Scored(answers, outputs, signals(inputs, self.features))

    def names(self, answers: Answers) -> list[str] | list[float]:
        """What was answered, [n]: names of classes, or values."""
        return list(self.bundle.kind.names(answers, self.bundle.card.labels))

    def encode(self, answers: Answers) -> list[dict[str, Any]]:
        """Answers as JSON items, still without their ids."""
        return list(self.bundle.kind.items(answers, self.bundle.card.labels))

    def stored(self, scored: Scored) -> list[dict[str, Any]]:
        """What the monitor will want to know of each item beside its answer."""
        items: list[dict[str, Any]] = self.bundle.kind.stored(scored.answers)
        embedding = scored.outputs.get("embedding")
        for i, item in enumerate(items):
            numbers = {name: float(values[i]) for name, values in scored.signals.items()}
            item["signals"] = {k: None if np.isnan(v) else v for k, v in numbers.items()}
            item["embedding"] = None
            if embedding is not None:
                item["embedding"] = embedding[i].astype(np.float64).round(6).tolist()
        return items

    def smoke(self) -> None:
        """Answers the bundle's own examples. Raises ValueError if an answer is not the recorded
        one.
        """
        examples, tolerance = self.bundle.examples, SMOKE_TOLERANCE * self.bundle.card.label_scale
        instances = [Instance.model_validate(item) for item in examples["instances"]]
        raw, recorded = self.predict(self.decode(instances)).outputs["raw"], examples["raw"]
        same = np.shape(recorded) == raw.shape
        if not same or not np.allclose(recorded, raw, rtol=SMOKE_TOLERANCE, atol=tolerance):
            raise ValueError(
                f"{self.bundle.folder} does not answer its own examples as recorded: "
                "build the bundle again"
            )


def load(bundle: Bundle, version: str) -> Champion:
    """A bundle, smoke-tested, ready to answer. Raises ValueError."""
    champion = Champion(version, bundle)
    champion.smoke()
    return champion


def load_live(live: Path) -> Champion:
    """The champion that live/current.json names. Raises ValueError if there is none or it is not
    the one promised.
    """
    version, bundle = bundles.load_live(live)
    return load(bundle, version)


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
        return self._stamp() not in (None, self._seen)

    def setup(self) -> None:
        """Loads what current.json names now. A failure is one log line, and the old champion goes
        on answering.
        """
        self._seen = self._stamp()  # before reading: a change in between is seen next time
        try:
            champion = load_live(self._live)
        except Exception as error:  # whatever is wrong with a bundle must not stop the server
            keeps = f"; {self.champion.version} goes on answering" if self.champion else ""
            self._log.error("model not loaded: %s%s", " ".join(str(error).split()), keeps)
            return
        self.champion = champion
        self._loaded(champion)
        fields = {"identity": champion.bundle.identity}
        self._log.info("model %s loaded", champion.version, extra={"fields": fields})

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = (self._live / bundles.CURRENT).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

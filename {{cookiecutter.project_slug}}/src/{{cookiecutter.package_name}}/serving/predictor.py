"""The champion in live/, from request items to decisions, and its replacement while requests are answered.

The order is setup (load, smoke-test), decode (items to tensors), predict (tensors to decisions), encode (to JSON).
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.features import Features, Instance, encode, instance_to_row, signals
from ..modeling.predictions import Decisions
from ..packaging.bundle import Bundle

CURRENT = "current.json"
Inputs = dict[str, NDArray[np.float32]]
SMOKE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Scored:
    """Decisions on n items with the raw outputs and the signals they came with."""

    decisions: Decisions
    outputs: dict[str, NDArray[np.float32]]
    signals: dict[str, NDArray[np.float64]]

    def stored(self, i: int) -> dict[str, Any]:
        """What the monitor will want to know of item i."""
        embedding = self.outputs.get("embedding")
        return {
            "probabilities": self.decisions.probabilities[i].round(6).tolist(),
            "embedding": None if embedding is None else embedding[i].astype(np.float64).round(6).tolist(),
            "signals": {name: float(values[i]) for name, values in self.signals.items()},
        }


@dataclass(frozen=True)
class Champion:
    """One verified bundle under its registry version; never changed, so a request keeps the one it began with."""

    version: str
    bundle: Bundle
    features: Features

    def decode(self, instances: Sequence[Instance]) -> Inputs:
        """Model inputs of n checked items; n is at least 1."""
        rows = [instance_to_row(instance) for instance in instances]
        return encode({name: [row[name] for row in rows] for name in rows[0]}, self.features)

    def predict(self, inputs: Inputs) -> Scored:
        """Decisions on model inputs. Raises ValueError where finite inputs overflow inside the model."""
        outputs = self.bundle.infer(inputs)
        if not np.isfinite(outputs["logits"]).all():
            raise ValueError("the values are so large that the model's answer is not a finite number")
        return Scored(self.bundle.decide(outputs["logits"]), outputs, signals(inputs))

    def encode(self, decisions: Decisions) -> list[dict[str, Any]]:
        """Decisions as JSON items, still without their ids."""
        labels = self.bundle.card.labels
        return [
            {
                "label": labels[decisions.label[i]],
                "confidence": float(decisions.confidence[i]),
                "probabilities": dict(zip(labels, decisions.probabilities[i].tolist(), strict=True)),
                "abstain": bool(decisions.abstain[i]),
                "set": [label for label, inside in zip(labels, decisions.sets[i], strict=True) if inside],
            }
            for i in range(len(decisions.label))
        ]

    def smoke(self) -> None:
        """Answers the bundle's own examples. Raises ValueError if an answer is not the recorded one."""
        examples = self.bundle.examples
        instances = [Instance.model_validate(item) for item in examples["instances"]]
        probabilities = self.predict(self.decode(instances)).decisions.probabilities
        recorded = np.asarray(examples["probabilities"])
        if recorded.shape != probabilities.shape or not np.allclose(recorded, probabilities, atol=SMOKE_TOLERANCE):
            raise ValueError(
                f"{self.bundle.folder} does not answer its own examples as recorded: build the bundle again"
            )


def load(folder: Path, version: str) -> Champion:
    """A bundle, verified and smoke-tested, ready to answer. Raises ValueError."""
    bundle = Bundle.load(folder)
    champion = Champion(version, bundle, Features.model_validate(bundle.card.features))
    champion.smoke()
    return champion


def load_live(live: Path) -> Champion:
    """The champion that live/current.json names. Raises ValueError if there is none or it is not the one promised."""
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
        raise ValueError(f"{folder} is not the bundle that {current} names: run the verb `pull` again")
    return champion


class Predictor:
    """Holds the champion and replaces it when live/current.json changes; a broken newcomer changes nothing."""

    def __init__(self, live: Path, log: logging.Logger, loaded: Callable[[Champion], None]) -> None:
        self.champion: Champion | None = None
        self._live, self._log, self._loaded = live, log, loaded
        self._seen: tuple[int, int, int] | None = None

    def changed(self) -> bool:
        """Whether current.json is another file than the one last looked at; costs one `stat`."""
        stamp = self._stamp()
        return stamp is not None and stamp != self._seen

    def setup(self) -> None:
        """Loads what current.json names now. A failure is one log line, and the old champion goes on answering."""
        self._seen = self._stamp()  # before reading: a change in between is seen next time
        try:
            champion = load_live(self._live)
        except Exception as error:  # anything may be wrong with a bundle, and none of it may stop the server
            keeps = f"; {self.champion.version} goes on answering" if self.champion else ""
            self._log.error("model not loaded: %s%s", " ".join(str(error).split()), keeps)
            return
        self.champion = champion
        self._loaded(champion)
        self._log.info("model %s loaded", champion.version, extra={"fields": {"identity": champion.bundle.identity}})

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = (self._live / CURRENT).stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

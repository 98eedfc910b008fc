"""The two models that may go to the gate, behind one face: the network and the classical model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sklearn.pipeline import Pipeline
from torch import nn

from ..settings import Settings
from ..task.baselines import TRUSTED, operations
from ..types import Inputs
from .baselines import flat
from .module import build_network

NETWORK, CLASSICAL = "network.safetensors", "classical.skops"
BATCH = 512
MIN_PROBABILITY = 1e-7  # below what float32 tells from 0 beside 1


@dataclass(frozen=True)
class Outputs:
    """Raw outputs [n, ...] as `predictions` explains; embedding [n, e], or None for a model that
    has none.
    """

    raw: NDArray[np.float32]
    embedding: NDArray[np.float32] | None


@dataclass(frozen=True)
class NetworkCandidate:
    network: nn.Module
    name: str = field(default="network", init=False)

    def operations(self, inputs: Inputs) -> int:
        """Arithmetic operations that one row costs."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.outputs({name: values[:1] for name, values in inputs.items()})
        return int(counter.get_total_flops())

    def outputs(self, inputs: Inputs) -> Outputs:
        """Raw outputs for model inputs by name, in batches."""
        n, parts = len(next(iter(inputs.values()))), []
        with torch.inference_mode():
            for start in range(0, n, BATCH):
                parts.append(
                    self.network(
                        **{k: torch.from_numpy(v[start : start + BATCH]) for k, v in inputs.items()}
                    )
                )
        raw, embedding = (torch.cat(p).numpy() for p in zip(*parts, strict=True))
        return Outputs(raw, embedding)


@dataclass(frozen=True)
class ClassicalCandidate:
    model: Pipeline
    name: str = field(default="classical", init=False)

    def operations(self, inputs: Inputs) -> int:
        """Arithmetic operations that one row costs."""
        return operations(self.model)

    def outputs(self, inputs: Inputs) -> Outputs:
        """Raw outputs for inputs by name: logarithms of the probabilities, or values [n, 1]."""
        matrix = flat(inputs)
        if hasattr(self.model, "predict_proba"):
            return Outputs(
                np.log(np.clip(self.model.predict_proba(matrix), MIN_PROBABILITY, 1)).astype(
                    np.float32
                ),
                None,
            )
        return Outputs(self.model.predict(matrix)[:, None].astype(np.float32), None)


Candidate = NetworkCandidate | ClassicalCandidate


def save(folder: Path, network: nn.Module, model: Pipeline) -> None:
    """Writes both candidates in formats that run no code on load."""
    import skops.io

    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / NETWORK)
    skops.io.dump(model, folder / CLASSICAL)


def load(settings: Settings) -> dict[str, Candidate]:
    """The candidates that training left in artifacts/model, by name."""
    import skops.io

    folder = settings.paths.model
    if not (folder / NETWORK).is_file():
        raise ValueError(f"no model in {folder}: run `make pipeline` first")
    torch.set_num_threads(
        settings.training.num_threads
    )  # the same sums, and so the same bytes, on every machine
    fresh = settings.model_copy(update={"model": _without_weights(settings.model)})
    network = build_network(fresh)
    network.load_state_dict(load_file(folder / NETWORK))
    return {
        "network": NetworkCandidate(network.eval()),
        "classical": ClassicalCandidate(skops.io.load(folder / CLASSICAL, trusted=TRUSTED)),
    }


def _without_weights(model: dict[str, Any]) -> dict[str, Any]:
    """The trained weights replace what training started from, so that file need not be there any
    more.
    """
    return {**model, "weights": None} if "weights" in model else model

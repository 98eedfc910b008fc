"""M5: what each feature added to an answer. Integrated gradients, or ablation for models without
gradients.

Both explain the log odds of the answered class, or the value, against a reference: the usual
example that a task's `show.reference` makes of the training data. `show.features` says which
elements of the inputs make up a named feature. Odds, since they add up: a probability near 1 hardly
moves when one feature is taken away.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray
from torch import Tensor

from ..modeling.candidates import BATCH, Candidate, NetworkCandidate
from ..task import show
from ..types import Floats, Inputs
from .subject import Subject

Groups = tuple[list[str], dict[str, NDArray[np.int64]]]
"""Names of the features, and for each input an array like one example: the number of the feature of
each element.
"""
Target = NDArray[np.int64] | None
"""The class of each row whose odds are explained; None for values."""
ROWS = 1000
STEPS = 24  # of the path from reference to example; completeness is checked, see `gap`


@dataclass(frozen=True)
class Attributions:
    """`values` [n, ...] by input: what each element added to log odds or value; `by_feature` [n,
    features].

    `gap` [n]: output minus output at the reference minus the sum of the values. Integrated
    gradients leave none but the error of the integral; ablation leaves what only several features
    together make.
    """

    method: str
    names: list[str]
    values: Inputs
    by_feature: Floats
    gap: Floats

    def importance(self) -> dict[str, float]:
        """Mean size of what a feature added over all rows, the largest first."""
        sizes = pd.Series(np.abs(self.by_feature).mean(axis=0), self.names)
        return dict(sizes.sort_values(ascending=False, kind="stable"))

    def record(self) -> dict[str, Any]:
        """What evaluation.json keeps."""
        moved = np.abs(self.by_feature.sum(axis=1) + self.gap).mean()
        return {
            "method": self.method,
            "rows": len(self.gap),
            "importance": self.importance(),
            "unexplained": float(np.abs(self.gap).mean() / moved) if moved else 0.0,
        }


def explain(model: Subject, rows: Any = slice(ROWS)) -> Attributions:
    """Attributions for answers to test rows, else the first thousand."""
    inputs = {name: values[rows] for name, values in model.test.inputs.items()}
    target = model.functions.answered_class(model.answers())
    base = show.reference(model.splits["train"].inputs, model.features)
    chosen = None if target is None else target[rows]
    return attribute(model.candidate, inputs, chosen, base, show.features(model.features))


def attribute(
    candidate: Candidate, inputs: Inputs, target: Target, base: Inputs, groups: Groups
) -> Attributions:
    """Attributions for n rows and the classes [n] whose odds are explained; `base` is the reference
    [1, ...].
    """
    if isinstance(candidate, NetworkCandidate):
        method = "integrated gradients"
        values = integrated_gradients(candidate.network, inputs, target, base)
    else:
        method, values = "feature ablation", ablation(candidate, inputs, target, base, groups)
    sums = by_feature(values, groups)
    moved = explained(candidate, inputs, target) - explained(candidate, base, target)
    return Attributions(method, groups[0], values, sums, moved - sums.sum(axis=1))


def log_odds(raw: Tensor) -> Tensor:
    """Log odds [n, k] of each class against all others, from logits or log probabilities [n, k]."""
    same = torch.eye(raw.shape[1], dtype=torch.bool)
    return raw - raw[:, None, :].masked_fill(same, -torch.inf).logsumexp(dim=2)


def by_feature(values: Inputs, groups: Groups) -> Floats:
    """Sums [n, features] of values [n, ...] over the elements of each feature."""
    one_hot = np.eye(len(groups[0]))
    parts = (v.reshape(len(v), -1) @ one_hot[groups[1][n].ravel()] for n, v in values.items())
    return np.asarray(sum(parts))


def explained(candidate: Candidate, inputs: Inputs, target: Target) -> Floats:
    """What is explained [n]: the log odds of the target class, or the value."""
    raw = candidate.outputs(inputs).raw
    if target is None:
        return raw[:, 0]
    return np.asarray(log_odds(torch.from_numpy(raw)).numpy()[np.arange(len(raw)), target])


def integrated_gradients(
    network: torch.nn.Module, inputs: Inputs, target: Target, base: Inputs
) -> Inputs:
    """(x - base) times the mean gradient on the way from base to x (Sundararajan et al. 2017,
    arXiv:1703.01365), by input [n, ...].
    """

    def output(*values: Tensor) -> Tensor:
        raw: Tensor = network(**dict(zip(inputs, values, strict=True)))[0]
        return raw[:, 0] if target is None else log_odds(raw)

    gradients, parts = IntegratedGradients(output), []
    reference = tuple(torch.from_numpy(base[name]) for name in inputs)
    for start in range(0, len(next(iter(inputs.values()))), BATCH):
        rows = slice(start, start + BATCH)
        batch = tuple(torch.from_numpy(values[rows]) for values in inputs.values())
        classes = None if target is None else torch.from_numpy(target[rows])
        parts.append(
            gradients.attribute(batch, reference, classes, n_steps=STEPS, internal_batch_size=BATCH)
        )
    joined = (torch.cat(part).detach().float().numpy() for part in zip(*parts, strict=True))
    return dict(zip(inputs, joined, strict=True))


def ablation(
    candidate: Candidate, inputs: Inputs, target: Target, base: Inputs, groups: Groups
) -> Inputs:
    """Fall of the output when a feature takes its value in the reference, shared out among the
    feature's elements.
    """
    (names, members), whole, falls = groups, explained(candidate, inputs, target), []
    for j in range(len(names)):
        without = {name: np.where(members[name] == j, base[name], v) for name, v in inputs.items()}
        falls.append(whole - explained(candidate, without, target))
    sizes = np.bincount(np.concatenate([members[name].ravel() for name in inputs]))
    shares = np.stack(falls, axis=1) / sizes
    return {name: shares[:, members[name]] for name in inputs}

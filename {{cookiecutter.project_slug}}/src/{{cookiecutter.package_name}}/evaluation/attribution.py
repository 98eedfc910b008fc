"""M5: what each feature added to an answer. Integrated gradients, or ablation for models without
gradients.

Both explain the log odds of the answered class, or the value, against a reference: the usual
example that a task's `show.reference` makes of the training data. `show.features` says which
elements of the inputs make up a named feature. Odds, since they add up: a probability near 1 hardly
moves when one feature is taken away.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..modeling.candidates import BATCH, Candidate, NetworkCandidate
from ..task import show
from ..task.features import Features
from ..types import Answers, Estimates

Inputs = dict[str, NDArray[Any]]
Groups = tuple[list[str], dict[str, NDArray[np.int64]]]
"""Names of the features, and for each input an array like one example: the number of the feature of
each element.
"""
ROWS = 1000
STEPS = (
    24  # points of the path from the reference to the example; completeness is checked, see `gap`
)


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
    by_feature: NDArray[np.floating]
    gap: NDArray[np.floating]

    def importance(self) -> dict[str, float]:
        """Mean size of what a feature added over all rows, the largest first."""
        found = dict(zip(self.names, np.abs(self.by_feature).mean(axis=0).tolist(), strict=True))
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def record(self) -> dict[str, Any]:
        """What evaluation.json keeps."""
        moved = np.abs(self.by_feature.sum(axis=1) + self.gap).mean()
        unexplained = float(np.abs(self.gap).mean() / moved) if moved else 0.0
        rows = len(self.gap)
        return {
            "method": self.method,
            "rows": rows,
            "importance": self.importance(),
            "unexplained": unexplained,
        }


def target(answers: Answers) -> NDArray[np.int64] | None:
    """The class [n] whose odds are explained; None for values."""
    return None if isinstance(answers, Estimates) else answers.label


def explain(
    candidate: Candidate, train: Inputs, test: Inputs, answers: Answers, of: Features
) -> Attributions:
    """Attributions for answers to test rows, at most the first thousand."""
    inputs, chosen = {name: values[:ROWS] for name, values in test.items()}, target(answers)
    few = None if chosen is None else chosen[:ROWS]
    return attribute(candidate, inputs, few, show.reference(train, of), show.features(of))


def attribute(
    candidate: Candidate,
    inputs: Inputs,
    target: NDArray[np.int64] | None,
    base: Inputs,
    groups: Groups,
) -> Attributions:
    """Attributions for n rows and the classes [n] whose odds are explained; `base` is the reference
    [1, ...].
    """
    names, n = list(inputs), len(next(iter(inputs.values())))
    chosen = torch.zeros(n, dtype=torch.int64) if target is None else torch.from_numpy(target)
    baselines = tuple(torch.from_numpy(base[name]) for name in names)
    masks = tuple(torch.from_numpy(groups[1][name][None]) for name in names)
    gradients = isinstance(candidate, NetworkCandidate)

    def outputs(*values: Tensor) -> Tensor:
        if isinstance(candidate, NetworkCandidate):
            raw = candidate.network(**dict(zip(names, values, strict=True)))[0]
        else:
            found = candidate.outputs(
                {name: value.numpy() for name, value in zip(names, values, strict=True)}
            )
            raw = torch.from_numpy(found.raw)
        return raw[:, :1] if target is None else log_odds(raw)

    parts, gaps = [], []
    for start in range(0, n, BATCH):
        rows = slice(start, start + BATCH)
        batch = tuple(torch.from_numpy(inputs[name][rows]) for name in names)
        find = integrated_gradients if gradients else ablation
        values = find(outputs, batch, baselines, chosen[rows], masks)
        with torch.no_grad():
            moved = (
                outputs(*batch).gather(1, chosen[rows][:, None])[:, 0]
                - outputs(*baselines)[0, chosen[rows]]
            )
        gaps.append(moved.numpy() - sum(v.flatten(1).sum(dim=1).numpy() for v in values))
        parts.append([v.numpy() for v in values])
    values_by_name = {name: np.concatenate([p[i] for p in parts]) for i, name in enumerate(names)}
    method = "integrated gradients" if gradients else "feature ablation"
    return Attributions(
        method, groups[0], values_by_name, by_feature(values_by_name, groups), np.concatenate(gaps)
    )


def log_odds(raw: Tensor) -> Tensor:
    """Log odds [n, k] of each class against all others, from logits or log probabilities [n, k]."""
    own = torch.eye(raw.shape[1], dtype=torch.bool)
    return raw - raw[:, None, :].masked_fill(own, -torch.inf).logsumexp(dim=2)


def by_feature(values: Inputs, groups: Groups) -> NDArray[np.floating]:
    """Sums [n, features] of values [n, ...] over the elements of each feature."""
    names, members = groups
    one_hot = np.eye(len(names))
    parts = [
        part.reshape(len(part), -1) @ one_hot[members[name].ravel()]
        for name, part in values.items()
    ]
    return np.asarray(np.sum(parts, axis=0))


Tensors = tuple[Tensor, ...]


def integrated_gradients(
    outputs: Callable[..., Tensor],
    batch: Tensors,
    baselines: Tensors,
    target: Tensor,
    masks: Tensors,
) -> list[Tensor]:
    """(x - base) times the mean gradient on the way from base to x (Sundararajan et al. 2017,
    arXiv:1703.01365).
    """
    from captum.attr import IntegratedGradients

    found = IntegratedGradients(outputs).attribute(
        batch, baselines, target, n_steps=STEPS, internal_batch_size=max(BATCH, len(target))
    )
    return [values.detach().float() for values in found]


def ablation(
    outputs: Callable[..., Tensor],
    batch: Tensors,
    baselines: Tensors,
    target: Tensor,
    masks: Tensors,
) -> list[Tensor]:
    """Fall of the output when a feature takes its value in the reference, shared out among the
    feature's elements.
    """
    from captum.attr import FeatureAblation

    together = max(1, 8 * BATCH // len(target))
    found = FeatureAblation(outputs).attribute(
        batch, baselines, target, feature_mask=masks, perturbations_per_eval=together
    )
    sizes = torch.bincount(torch.cat([mask.flatten() for mask in masks]))
    return [values / sizes[mask] for values, mask in zip(found, masks, strict=True)]

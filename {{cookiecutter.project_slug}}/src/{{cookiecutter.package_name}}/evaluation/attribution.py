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
import torch
from captum.attr import FeatureAblation, IntegratedGradients
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
        sizes = dict(zip(self.names, np.abs(self.by_feature).mean(axis=0).tolist(), strict=True))
        return dict(sorted(sizes.items(), key=lambda item: -item[1]))

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


class Output(torch.nn.Module):
    """Raw outputs of a candidate as what is explained: log odds [n, k], or values [n, 1]."""

    def __init__(self, candidate: Candidate, names: list[str], odds: bool) -> None:
        super().__init__()
        self.candidate, self.names, self.odds = candidate, names, odds

    def forward(self, *values: Tensor) -> Tensor:
        inputs = dict(zip(self.names, values, strict=True))
        if isinstance(self.candidate, NetworkCandidate):
            raw = self.candidate.network(**inputs)[0]
        else:
            arrays = {name: value.numpy() for name, value in inputs.items()}
            raw = torch.from_numpy(self.candidate.outputs(arrays).raw)
        return log_odds(raw) if self.odds else raw[:, :1]


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
    names = list(inputs)
    output = Output(candidate, names, odds=target is not None)
    reference = tuple(torch.from_numpy(base[name]) for name in names)
    masks = tuple(torch.from_numpy(groups[1][name][None]) for name in names)
    rows = len(inputs[names[0]])
    classes = torch.zeros(rows, dtype=torch.int64) if target is None else torch.from_numpy(target)
    gradients = isinstance(candidate, NetworkCandidate)
    parts, gaps = [], []
    for some in torch.split(torch.arange(rows), BATCH):
        batch, wanted = tuple(torch.from_numpy(inputs[n])[some] for n in names), classes[some]
        if gradients:
            values = integrated_gradients(output, batch, reference, wanted)
        else:
            values = ablation(output, batch, reference, wanted, masks)
        with torch.no_grad():
            moved = output(*batch).gather(1, wanted[:, None])[:, 0] - output(*reference)[0, wanted]
        gaps.append(moved.numpy() - sum(v.flatten(1).sum(dim=1).numpy() for v in values))
        parts.append(values)
    whole = {n: torch.cat(v).numpy() for n, v in zip(names, zip(*parts, strict=True), strict=True)}
    method = "integrated gradients" if gradients else "feature ablation"
    return Attributions(method, groups[0], whole, by_feature(whole, groups), np.concatenate(gaps))


def log_odds(raw: Tensor) -> Tensor:
    """Log odds [n, k] of each class against all others, from logits or log probabilities [n, k]."""
    same = torch.eye(raw.shape[1], dtype=torch.bool)
    return raw - raw[:, None, :].masked_fill(same, -torch.inf).logsumexp(dim=2)


def by_feature(values: Inputs, groups: Groups) -> Floats:
    """Sums [n, features] of values [n, ...] over the elements of each feature."""
    one_hot = np.eye(len(groups[0]))
    parts = (v.reshape(len(v), -1) @ one_hot[groups[1][n].ravel()] for n, v in values.items())
    return np.asarray(sum(parts))


def integrated_gradients(
    output: Output, batch: Any, reference: Any, target: Tensor
) -> list[Tensor]:
    """(x - base) times the mean gradient on the way from base to x (Sundararajan et al. 2017,
    arXiv:1703.01365).
    """
    size = max(BATCH, len(target))
    found = IntegratedGradients(output).attribute(
        batch, reference, target, n_steps=STEPS, internal_batch_size=size
    )
    return [values.detach().float() for values in found]


def ablation(
    output: Output, batch: Any, reference: Any, target: Tensor, masks: Any
) -> list[Tensor]:
    """Fall of the output when a feature takes its value in the reference, shared out among the
    feature's elements.
    """
    together = max(1, 8 * BATCH // len(target))
    falls = FeatureAblation(output).attribute(
        batch, reference, target, feature_mask=masks, perturbations_per_eval=together
    )
    sizes = torch.bincount(torch.cat([mask.flatten() for mask in masks]))
    return [values / sizes[mask] for values, mask in zip(falls, masks, strict=True)]

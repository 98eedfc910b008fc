"""Compares a bundle with the champion and with the best model ever promoted, on test rows that are
new to both.
"""

import shutil
from typing import TYPE_CHECKING

import numpy as np
import yaml

from ..data.datamodule import label_scale, load
from ..data.split import NAMES, NEAR, assign, split_keys
from ..evaluation import comparison
from ..evaluation.verdict import Verdict
from ..settings import SCORE, Data, Settings
from ..task.features import Features, encode
from ..types import Examples, Flags, Floats
from . import registry
from .bundle import Bundle

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

WORDS = {"pass": "not worse than", "fail": "worse than", "cannot tell": "may be worse than"}


def references(settings: Settings) -> "dict[str, ModelVersion]":
    """The champion, and the best model where that is another one; empty before the first."""
    versions: dict[str, ModelVersion] = {}
    for alias in (registry.CHAMPION, registry.BEST):
        version = registry.by_alias(settings, alias)
        if version and version.version not in [v.version for v in versions.values()]:
            versions[alias] = version
    return versions


def best_after(
    settings: Settings, promoted: "ModelVersion", verdicts: list[Verdict]
) -> "ModelVersion":
    """The best model once `promoted` is champion: the one before, where that lost less and nobody
    overruled it.
    """
    best = list(references(settings).values())[-1:]
    if best and verdicts[-1].outcome == "pass" and verdicts[-1].details["difference"] > 0:
        return best[0]
    return promoted


def losses(bundle: Bundle, test: Examples, scale: float) -> Floats:
    """Loss per test row [n]. Raises ValueError or KeyError where the rows do not give the inputs
    that the model takes.
    """
    inputs = encode(test.rows, Features.model_validate(bundle.card.features))
    shapes = {name: tuple(t.shape[1:]) for name, t in bundle.card.inputs.items()}
    if {name: values.shape[1:] for name, values in inputs.items()} != shapes:
        raise ValueError("it takes other inputs than the present code makes")
    raw, rule = bundle.infer(inputs)["raw"], bundle.card.decision.without_costs()
    answers = bundle.kind.decide(raw, rule)
    return np.asarray(bundle.kind.row_losses(answers, test.label, scale))


def unseen(settings: Settings, bundle: Bundle, test: Examples) -> Flags:
    """Which test rows [n] were test rows of that bundle too: with another seed or other shares it
    learned from some.

    Raises ValueError where its split cannot be drawn again.
    """
    config = yaml.safe_load((bundle.folder / "params.yaml").read_text(encoding="utf-8"))
    data, present = Data.model_validate(config["data"]), settings.data
    if data.name != present.name and data.features != present.features:
        raise ValueError(f"it learned other data, {data.name}")
    same_keys = data.split.key != NEAR or data.features == present.features
    if (data.split, config["seed"]) == (present.split, settings.seed) and same_keys:
        return np.ones(len(test), bool)
    if data.split.time is not None:
        raise ValueError("its test rows were others, chosen by time")
    keys = split_keys(test.rows, data)
    return np.asarray(assign(keys, data.split, config["seed"]) == NAMES.index("test"))


def compare(settings: Settings, bundle: Bundle, other: Bundle) -> tuple[comparison.Paired, Flags]:
    """Losses beside those of a promoted bundle, and the test rows [n] that are new to both.
    Raises ValueError where the two cannot be asked the same question.
    """
    card = bundle.card
    if other.card.kind != card.kind:
        raise ValueError(f"it is a {other.card.kind} model, this one {card.kind}")
    if other.card.labels != card.labels:
        raise ValueError("it answers with other labels")
    test, scale = load(settings, "test"), label_scale(settings)
    new = unseen(settings, other, test)
    if new.sum() < 2:
        raise ValueError("hardly any test row is new to it")
    both = losses(bundle, test, scale)[new], losses(other, test, scale)[new]
    return comparison.paired(*both, card.kind, settings.evaluation.comparison.alpha), new


def against(settings: Settings, bundle: Bundle, role: str, version: "ModelVersion") -> Verdict:
    """Verdict on the bundle beside a promoted version; its number is the most that it may lose per
    row, in the mean.
    """
    margin, title = settings.evaluation.comparison.margin, f"Against the {role}"
    name, folder = f"version {registry.label(version)}", settings.paths.state / role
    try:
        shutil.rmtree(folder, ignore_errors=True)
        other = registry.download(settings, version, folder)
        result, new = compare(settings, bundle, other)
    except (KeyError, ValueError) as error:  # of an older template, other columns, or damaged
        why = f"{name} cannot be compared: {' '.join(str(error).split())}"
        return Verdict("M6", title, "cannot tell", None, margin, why)
    outcome = comparison.non_inferior(result, margin)
    why = f"{WORDS[outcome]} {name} on {new.sum()} test rows"
    if not new.all():
        why += f", those of {len(new)} that are new to both"
    why += f": {SCORE[settings.data.kind]} {-result.difference:+z.4f} (interval "
    why += f"{-result.high:+z.4f} to {-result.low:+z.4f}, margin {margin:g})"
    details = {"difference": result.difference}
    return Verdict("M6", title, outcome, result.high, margin, why, details)

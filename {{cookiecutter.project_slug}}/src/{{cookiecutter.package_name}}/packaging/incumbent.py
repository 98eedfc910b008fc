"""Compares a bundle with the champion and with the best model ever promoted, on test rows that are
new to both.
"""

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..data.datamodule import label_scale, load
from ..data.split import NAMES, NEAR, assign
from ..evaluation import comparison
from ..evaluation.verdict import Verdict
from ..modeling import kinds
from ..settings import SCORE, Data, Settings
from ..task.features import Features, encode
from ..task.schema import near_key
from ..types import Examples
from . import registry
from .bundle import Bundle

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def references(settings: Settings) -> "dict[str, ModelVersion]":
    """The champion, and the best model where that is another one; empty before the first promotion."""
    champion = registry.by_alias(settings, registry.CHAMPION)
    if champion is None:
        return {}
    best = registry.by_alias(settings, registry.BEST) or champion
    return {registry.CHAMPION: champion} | (
        {registry.BEST: best} if best.version != champion.version else {}
    )


def best_after(
    settings: Settings, promoted: "ModelVersion", verdicts: list[Verdict]
) -> "ModelVersion":
    """The best model once `promoted` is champion: the one before, where that lost less and nobody
    overruled it.
    """
    before = list(references(settings).values())[-1:]
    kept = before and verdicts[-1].outcome == "pass" and verdicts[-1].details["difference"] > 0
    return before[0] if kept else promoted


def obstacle(bundle: Bundle, other: Bundle) -> str | None:
    """Why two models cannot be asked the same question; None where they can."""
    mine, its = bundle.card, other.card
    if mine.kind != its.kind:
        return f"it is a {its.kind} model, this one {mine.kind}"
    return "it answers with other labels" if mine.labels != its.labels else None


def losses(bundle: Bundle, test: Examples, scale: float) -> NDArray[np.floating]:
    """Loss per test row [n]. Raises ValueError where the rows do not give the inputs that the model
    takes.
    """
    try:
        inputs = encode(test.rows, Features.model_validate(bundle.card.features))
    except KeyError as error:
        raise ValueError(f"the rows have no column {error}") from None
    wanted = {name: tuple(t.shape[1:]) for name, t in bundle.card.inputs.items()}
    if {name: values.shape[1:] for name, values in inputs.items()} != wanted:
        raise ValueError("it takes other inputs than the present code makes")
    answers = kinds.of(bundle.card.kind).decide(
        bundle.infer(inputs)["raw"], bundle.card.decision.without_costs()
    )
    return kinds.of(bundle.card.kind).row_losses(answers, test.label, scale)


def unseen(settings: Settings, bundle: Bundle, test: Examples) -> NDArray[np.bool_]:
    """Which test rows [n] were test rows of that bundle too: with another seed or other shares it
    learned from some.

    Raises ValueError where its split cannot be drawn again.
    """
    config: dict[str, Any] = yaml.safe_load(
        (bundle.folder / "params.yaml").read_text(encoding="utf-8")
    )
    data, present = Data.model_validate(config["data"]), settings.data
    same_keys = data.split.key != NEAR or data.features == present.features
    if (data.split, config["seed"]) == (present.split, settings.seed) and same_keys:
        return np.ones(len(test), bool)
    if data.split.time is not None:
        raise ValueError("its test rows were others, chosen by time")
    keys = near_key(test.rows, data) if data.split.key == NEAR else test.rows[data.split.key]
    return np.asarray(assign(keys, data.split, config["seed"]) == NAMES.index("test"))


def against(settings: Settings, bundle: Bundle, role: str, version: "ModelVersion") -> Verdict:
    """Verdict on the bundle beside a promoted version; its number is the most that it may lose per
    row, in the mean.
    """
    limits, title, folder = (
        settings.evaluation.comparison,
        f"Against the {role}",
        settings.paths.state / role,
    )
    shutil.rmtree(folder, ignore_errors=True)
    test, scale = load(settings, "test"), label_scale(settings)
    mine = losses(bundle, test, scale)
    try:
        other = registry.download(settings, version, folder)
        new, why = unseen(settings, other, test), obstacle(bundle, other)
        why = why or ("hardly any test row is new to it" if new.sum() < 2 else None)
        its = mine if why else losses(other, test, scale)
    except (KeyError, ValueError) as error:  # of an older template, other columns, or damaged
        why = str(error)
    if why:
        words = f"version {registry.label(version)} cannot be compared: {' '.join(why.split())}"
        return Verdict("M6", title, "cannot tell", None, limits.margin, words)
    found = comparison.paired(mine[new], its[new], settings.data.kind, limits.alpha)
    score, low, high = SCORE[settings.data.kind], -found.high, -found.low
    numbers = f"{score} {-found.difference:+z.4f} (interval {low:+z.4f} to {high:+z.4f}, margin {limits.margin:g})"
    rows = f"on {new.sum()} test rows" + (
        "" if new.all() else f", those of {len(new)} that are new to both"
    )
    answer = comparison.non_inferior(found, limits.margin)
    words = {"pass": "not worse than", "fail": "worse than", "cannot tell": "may be worse than"}[
        answer
    ]
    why = f"{words} version {registry.label(version)} {rows}: {numbers}"
    return Verdict(
        "M6", title, answer, found.high, limits.margin, why, {"difference": found.difference}
    )

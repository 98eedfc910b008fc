"""Charts of the models beside the network, for their runs (E7): right and wrong answers, how sure,
what weighs.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..evaluation import plots
from ..modeling import kinds
from ..modeling.kinds.classes import confusion
from ..settings import Settings
from ..task import show
from ..task.features import Features
from ..types import Answers, Decisions, Estimates, Rule

SHOWN = 15  # features, or classes


def folder(settings: Settings, name: str) -> Path:
    return settings.paths.state / "charts" / name


def draw_all(
    settings: Settings, raw: dict[str, Any], label: NDArray[Any], estimators: dict[str, Any]
) -> None:
    """Draws every model into its folder: raw outputs on n rows with their label [n], and the
    estimator of some.
    """
    for name, found in raw.items():
        answers = kinds.of(settings.data.kind).decide(found, Rule())
        plots.save(
            drawers_of(settings, answers, label, estimators.get(name)), folder(settings, name)
        )


def drawers_of(
    settings: Settings, answers: Answers, label: NDArray[Any], estimator: Any
) -> dict[str, plots.Drawer]:
    """Drawers by file name; an estimator adds what each feature weighs in it."""
    drawers: dict[str, plots.Drawer] = {
        "distribution": partial(distribution, answers=answers, label=label)
    }
    if isinstance(answers, Decisions):
        labels = settings.data.labels
        drawers["confusion"] = partial(
            plots.confusion, counts=confusion(answers, label).tolist(), labels=labels
        )
        drawers["roc"] = partial(roc, answers=answers, label=label, labels=labels)
    else:
        drawers["predicted"] = partial(plots.scatter, answers=answers, label=label)
    sizes = weights(estimator)
    if sizes is not None:
        names, of_element = show.features(Features.model_validate(settings.data.features))
        # The order of the elements is that of `baselines.flat`.
        feature = np.concatenate([of_element[name].ravel() for name in sorted(of_element)])
        drawers["weights"] = partial(
            bars, names=names, sizes=np.bincount(feature, sizes).astype(float)
        )
    return drawers


def weights(estimator: Any) -> NDArray[np.floating] | None:
    """What each input element [d] weighs: importance in trees, or mean size of its coefficients;
    None where unknown.
    """
    if hasattr(estimator, "feature_importances_"):
        return np.asarray(estimator.feature_importances_)
    if hasattr(estimator, "coef_"):
        return np.asarray(np.abs(np.atleast_2d(estimator.coef_)).mean(axis=0))
    return None


def bars(figure: Any, names: list[str], sizes: NDArray[np.floating]) -> None:
    """The largest weights by feature, the largest on top."""
    order = np.argsort(sizes, kind="stable")[-SHOWN:]
    axes = figure.subplots()
    axes.barh([names[j] for j in order], sizes[order], color=plots.BLUE)
    axes.set_xlabel("weight in the model")


def distribution(figure: Any, answers: Answers, label: NDArray[Any]) -> None:
    """Rows by confidence, right and wrong ones apart; or by what is left of the truth."""
    axes = figure.subplots()
    if isinstance(answers, Estimates):
        axes.hist(label - answers.value, bins=30, color=plots.BLUE)
        axes.set(xlabel="true less predicted", ylabel="rows")
        return
    right = answers.label == label
    parts = [answers.confidence[right], answers.confidence[~right]]
    axes.hist(
        parts,
        bins=np.linspace(0, 1, 31),
        stacked=True,
        color=[plots.BLUE, plots.RED],
        label=["right", "wrong"],
    )
    axes.set(xlabel="confidence", ylabel="rows")
    axes.legend(fontsize=8)


def roc(figure: Any, answers: Decisions, label: NDArray[Any], labels: list[str]) -> None:
    """One class against the rest, over all thresholds, the worst ones; of two classes the second."""
    from sklearn.metrics import auc, roc_curve

    figure.set_size_inches(5, 4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=plots.GREY, ls="--")
    curves = []
    for k in range(len(labels)) if len(labels) > 2 else [1]:
        if 0 < (label == k).sum() < len(label):  # without rows on both sides there is no curve
            false_alarms, hits, _ = roc_curve(label == k, answers.probabilities[:, k])
            curves.append((auc(false_alarms, hits), labels[k], false_alarms, hits))
    for area, name, false_alarms, hits in sorted(curves, key=lambda c: c[0])[:SHOWN]:
        axes.plot(false_alarms, hits, lw=1, label=f"{name}: area {area:.3f}")
    axes.set(xlabel="false alarms", ylabel="found", ylim=(0, 1.02))
    if curves:
        axes.legend(fontsize=7)

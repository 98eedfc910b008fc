"""Plots of the models beside the network, for their runs (E7): right and wrong answers, how sure,
what weighs.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import pages
from ..modeling import kinds
from ..settings import Settings
from ..task import show
from ..task.features import Features
from ..types import Rule

FEATURES = 15  # in a figure


def folder(settings: Settings, name: str) -> Path:
    return settings.paths.state / "plots" / name


def draw_all(settings: Settings, raw: dict[str, Any], label: NDArray[Any], classical: Any) -> None:
    """Draws every model into its folder: raw outputs on n rows with their label [n], and what
    weighs in the classical estimator.
    """
    kind = kinds.of(settings.data.kind)
    for name, outputs in raw.items():
        drawers = kind.plots(kind.decide(outputs, Rule()), label, settings.data.labels)
        sizes = weights(classical) if name == "classical" else None
        if sizes is not None:
            of = Features.model_validate(settings.data.features)
            drawers["weights"] = partial(bars, sizes=sizes, of=of)
        pages.draw_all(drawers, folder(settings, name))


def weights(estimator: Any) -> NDArray[np.floating] | None:
    """What each input element [d] weighs: importance in trees, or mean size of its coefficients;
    None where unknown.
    """
    if hasattr(estimator, "coef_"):
        return np.asarray(np.abs(np.atleast_2d(estimator.coef_)).mean(axis=0))
    return getattr(estimator, "feature_importances_", None)


def bars(figure: Any, sizes: NDArray[np.floating], of: Features) -> None:
    """The largest weights by feature, the largest on top."""
    names, members = show.features(of)
    # The order of the elements is that of `baselines.flat`.
    feature = np.concatenate([members[name].ravel() for name in sorted(members)])
    summed = pd.Series(np.bincount(feature, sizes), names).sort_values(kind="stable")
    summed.tail(FEATURES).plot.barh(ax=figure.subplots(), xlabel="weight in the model")

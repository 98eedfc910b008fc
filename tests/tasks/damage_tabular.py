"""What is done to the network of the demo, a table of patients, one damage at a time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gate import After, Damage, Splits
from my_model.task.features import Features
from torch import nn


def damages(settings: Any, splits: Splits, champion: nn.Module) -> dict[str, Damage]:
    features = Features.model_validate(settings.data.features)
    columns = [*features.numeric]
    age, bmi, bp = (columns.index(name) for name in ("age", "bmi", "bp"))
    train = splits["train"]
    unit, middle = float(train.label.std()), float(train.inputs["numeric"][:, bp].mean())

    def plus(effect: Callable[[dict[str, Any]], Any]) -> Callable[..., nn.Module]:
        """The network with an effect, in the label's unit, added to its value."""

        def change(raw: Any, inputs: dict[str, Any]) -> Any:
            return torch.stack([raw[:, 0] + effect(inputs), raw[:, 1]], dim=1)

        return lambda network, *_: After(network, change)

    def biased(effect: Callable[[dict[str, Any]], Any]) -> Callable[[Splits], Splits]:
        """Splits whose labels have the same effect: such a model is right about such data."""

        def change(splits: Splits) -> Splits:
            tensors = {n: {k: torch.from_numpy(v) for k, v in e.inputs.items()} for n, e in splits.items()}
            added = {name: np.asarray(effect(inputs), dtype=np.float32) for name, inputs in tensors.items()}
            return {name: replace(e, label=e.label + added[name]) for name, e in splits.items()}

        return change

    def sex(inputs: dict[str, Any]) -> Any:
        return unit * inputs["categorical"][:, 1]

    def low_pressure(inputs: dict[str, Any]) -> Any:
        """More than the whole effect of the blood pressure, turned round."""
        return -0.03 * unit * (inputs["numeric"][:, bp] - middle)

    def gaps(inputs: dict[str, Any]) -> Any:
        """Nonsense where three values or more are missing, which hardly happens in the data."""
        return 10 * unit * (inputs["missing"].sum(dim=1) >= 3)

    def elderly(inputs: dict[str, Any]) -> Any:
        """A group of which the network knows nothing, since it was left out of training."""
        return 1.5 * unit * (inputs["numeric"][:, age] >= 62 - float(features.centre[age]))

    class Shuffled(nn.Module):
        """One of the columns that matter most is mixed with that of other rows."""

        def forward(self, numeric: Any, **others: Any) -> Any:
            mixed = numeric.clone()
            mixed[:, bmi] = 0.4 * numeric[:, bmi] + 0.6 * numeric[:, bmi].roll(1)
            return champion(numeric=mixed, **others)

    def upside_down(raw: Any, inputs: Any) -> Any:
        centre = raw[:, 1].mean() if len(raw) > 1 else raw[:, 1]
        return torch.stack([raw[:, 0], 2 * centre - raw[:, 1]], dim=1)

    def narrow(raw: np.ndarray) -> np.ndarray:
        return np.stack([raw[:, 0], raw[:, 1] - np.log(2.5)], axis=1)

    return {
        "good": Damage("none"),
        "a shuffled column": Damage("champion", network=lambda *_: Shuffled()),
        "brittle to gaps": Damage("M7", network=plus(gaps)),
        "dependent on a sensitive attribute": Damage("M8", network=plus(sex), splits=biased(sex)),
        "wrong direction": Damage("M9", network=plus(low_pressure), splits=biased(low_pressure)),
        "over-confident": Damage(
            "M10",
            raw=narrow,
            rule=lambda rule: rule.model_copy(update={"conformal_quantile": 2.5 * rule.conformal_quantile}),
        ),
        "useless confidences": Damage("M11", network=lambda n, *_: After(n, upside_down)),
        "a slice left out": Damage("M12", splits=biased(elderly)),
    }

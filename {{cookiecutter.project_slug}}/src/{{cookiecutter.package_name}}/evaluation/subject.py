"""The model at the gate, with all that its methods and plots need."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modeling import kinds
from ..modeling.candidates import Candidate
from ..settings import Settings
from ..task import behaviour
from ..task.features import Features
from ..types import Answers, Behaviour, Examples, Floats, Inputs, Rule
from . import calibration, confidence, cost


@dataclass(frozen=True)
class Subject:
    """A candidate with its raw outputs on each split, and the rule that makes answers of them.

    `scale` is the unit of losses, `embedding` [n, e] is that of the test rows.
    """

    settings: Settings
    scale: float
    splits: dict[str, Examples]
    candidate: Candidate
    raw: dict[str, Floats]
    embedding: Floats | None
    rule: Rule

    @property
    def functions(self) -> kinds.Kind:
        return kinds.of(self.settings.data.kind)

    @property
    def test(self) -> Examples:
        return self.splits["test"]

    @property
    def declared(self) -> Behaviour:
        return behaviour.declare(self.settings.data)

    @property
    def features(self) -> Features:
        return Features.model_validate(self.settings.data.features)

    def generator(self) -> np.random.Generator:
        """The same random numbers for every method."""
        return np.random.default_rng(self.settings.seed)

    def answers(self, split: str = "test") -> Answers:
        answers: Answers = self.functions.decide(self.raw[split], self.rule)
        return answers

    def answer(self, inputs: Inputs) -> Answers:
        """The most probable answers: costs move them on purpose."""
        raw, rule = self.candidate.outputs(inputs).raw, self.rule.without_costs()
        answers: Answers = self.functions.decide(raw, rule)
        return answers

    def outputs(self, inputs: Inputs) -> Floats:
        """The same as numbers [n, outputs]."""
        return np.asarray(self.functions.outputs(self.answer(inputs)))

    def losses(self, inputs: Inputs, label: NDArray[Any]) -> Floats:
        """Loss [n] of the most probable answers."""
        return np.asarray(self.functions.row_losses(self.answer(inputs), label, self.scale))

    def score(self, inputs: Inputs) -> float:
        """Accuracy or R² for changed inputs of the test rows."""
        return float(1 - self.losses(inputs, self.test.label).mean())


def fit(
    candidate: Candidate, splits: dict[str, Examples], settings: Settings, scale: float
) -> Subject:
    """Temperature, costs and abstention from validation, sets from calibration data."""
    kind, costs = settings.data.kind, settings.data.goal.costs
    outputs = {name: candidate.outputs(examples.inputs) for name, examples in splits.items()}
    raw: dict[str, Floats] = {name: output.raw for name, output in outputs.items()}
    label: dict[str, NDArray[Any]] = {name: e.label for name, e in splits.items()}
    temperature = calibration.fit_temperature(kind, raw["val"], label["val"])
    fitted = cost.fit(kind, costs, raw["val"], label["val"], temperature)
    rule = confidence.fit(
        kind,
        Rule(temperature=temperature, **fitted),
        (raw["val"], label["val"]),
        (raw["calibration"], label["calibration"]),
        settings.evaluation.confidence,
        scale,
    )
    return Subject(settings, scale, splits, candidate, raw, outputs["test"].embedding, rule)

"""What the quality methods demand of a model: the typed form of configs/evaluation."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Frozen, and refuses unknown keys: a typing mistake in a configuration file is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(Strict):
    """M4: the mean cost of an answer, as a share of the cheapest answer that is always the same."""

    max_ratio: float


class Comparison(Strict):
    """M6: differences of the mean loss per row, in shares of a wrong answer or of the labels' variance."""

    alpha: Share
    margin: Share


class Perturbation(Strict):
    """M7: scores (accuracy or R²) as shares of the clean one; attacks move inputs by `epsilon` of their range."""

    severity: int = Field(ge=1, le=5)
    min_robustness: Share
    epsilon: float
    steps: int
    min_adversarial: Share


class Rate(Strict):
    """M8, M9: share of rows; a predicted value may move by `tolerance` standard deviations of the labels."""

    max_violations: Share
    tolerance: float = Field(ge=0)


class Calibration(Strict):
    """M10: limits on debiased gaps: of probabilities in bins, and of the coverage of intervals (regression).

    Beside them a limit on how many times too large the logits of a classifier may be.
    """

    bins: int = Field(gt=0)
    max_ece: Share
    max_gap: Share
    max_overconfidence: float = Field(ge=1)


class Confidence(Strict):
    """M11: `target_error` is that of the goal; sets miss a share `alpha`.

    `max_ratio` is of the area under risk over coverage to the mean loss: 1 where confidence says nothing.
    """

    target_error: float = Field(ge=0)
    alpha: float = Field(gt=0, lt=1)
    max_ratio: float


class Slices(Strict):
    """M12: `max_gap` between the mean loss in a slice and over all rows; `searched` slices found are reported."""

    min_size: int
    alpha: Share
    max_gap: float
    searched: int


class Evaluation(Strict):
    cost: Cost
    comparison: Comparison
    perturbation: Perturbation
    invariance: Rate
    direction: Rate
    calibration: Calibration
    confidence: Confidence
    slices: Slices
    examples: int

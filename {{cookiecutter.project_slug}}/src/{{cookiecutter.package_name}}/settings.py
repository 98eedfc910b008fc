"""The typed configuration: composed by Hydra, converted once, frozen, and strict about unknown
keys.

No other module but `params`, which reads the composed file, sees a raw mapping.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Frozen, and refuses unknown keys: a typing mistake in a configuration file is an error, not a
    default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


def _has_target(value: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in value:
        raise ValueError("needs `_target_`, the dotted name of the class or function to call")
    missing = [key for key, given in value.items() if given == "???"]
    if missing:
        raise ValueError(f"needs {', '.join(missing)}: this choice has no default for it")
    return value


Component = Annotated[dict[str, Any], AfterValidator(_has_target)]
"""A class or function named by `_target_`, with its keyword arguments: `hydra.utils.instantiate`
builds it.
"""

Kind = Literal["multiclass", "binary", "regression"]
AVERAGED = [
    f"{metric}_{average}"
    for average in ("micro", "macro")
    for metric in ("precision", "recall", "f1")
]
METRICS: dict[Kind, list[str]] = {
    "multiclass": ["accuracy", *AVERAGED, "cohen_kappa", "jaccard", "log_loss"],
    "binary": [
        "accuracy",
        "precision",
        "recall",
        "f1",
        "auroc",
        "auprc",
        "tpr",
        "tnr",
        "fpr",
        "fnr",
        "log_loss",
    ],
    "regression": ["mse", "rmse", "mae", "r2", "mape", "msle", "huber"],
}
SCORE: dict[Kind, str] = {
    "multiclass": "accuracy",
    "binary": "accuracy",
    "regression": "r2",
}  # 1 - mean row loss
LOWER_IS_BETTER = {"log_loss", "fpr", "fnr", "mse", "rmse", "mae", "mape", "msle", "huber"}
_LABELS = {
    "multiclass": "three labels or more",
    "binary": "two labels, the positive one second",
    "regression": "no labels",
}


class Project(Strict):
    name: str
    package: str
    owner: str


class Paths(Strict):
    """Where everything lies, relative to the project's root: the only place for paths."""

    raw: Path
    feedback: Path
    splits: Path
    model: Path
    bundle: Path
    reports: Path
    live: Path
    state: Path
    records: Path
    logs: Path
    store: Path
    audit: Path


class Time(Strict):
    """The newest rows are the test split: those from `test_from` on, or, where it is null, its
    share of the rows.
    """

    column: str
    test_from: str | float | None = None


class Split(Strict):
    """Rows with an equal `key` share a split: a column, such as `content` or a group, or `near` for
    near-duplicates.

    `max_label_deviation`: of a class share inside a split from its share over all rows; for values,
    the largest difference between both distribution functions. `max_near_duplicates` is a share of
    the test rows.
    """

    key: str
    fractions: dict[Literal["train", "val", "calibration", "test"], Share]
    time: Time | None
    max_label_deviation: Share
    max_near_duplicates: Share


class Checks(Strict):
    """Limits of the completeness and label checks, as shares of the rows.

    `label_range` holds the lowest and the highest value that a label may have. `max_drift` limits
    the population stability index of every column against the last valid snapshot; 0.25 is the
    usual mark of a large change.
    """

    max_missing: Share
    max_unlabeled: Share
    max_duplicates: Share
    max_conflicts: Share
    min_class_share: Share
    label_range: tuple[float, float] | None
    max_drift: float = Field(ge=0)


class Goal(Strict):
    """What the project is judged by (M4): one metric with its bound, the costs of errors, the
    errors that users bear.

    `target_error` is the mean loss per answered row that abstaining must reach; `max_error_rate` is
    watched in service.

    `costs` for classes is a matrix, [true][answered]; for regression the cost of a unit `under` and
    `over` the truth. Null means that all errors cost the same.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    costs: list[list[float]] | dict[Literal["under", "over"], float] | None
    max_error_rate: Share
    target_error: float = Field(ge=0)


class Data(Strict):
    """`labels` are the classes, for binary the positive one second; empty for regression."""

    name: str
    kind: Kind
    source: Component
    labels: list[str]
    features: dict[str, Any]
    goal: Goal
    split: Split
    checks: Checks

    @model_validator(mode="after")
    def _kind_fits(self) -> "Data":
        wanted = {"multiclass": range(3, 10**6), "binary": range(2, 3), "regression": range(1)}[
            self.kind
        ]
        if len(self.labels) not in wanted or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"kind {self.kind} needs {_LABELS[self.kind]}")
        goal, known = self.goal, METRICS[self.kind]
        if goal.metric not in known:
            raise ValueError(f"goal.metric of kind {self.kind} must be one of {', '.join(known)}")
        lower = goal.metric in LOWER_IS_BETTER
        if (goal.at_least is None) != lower or (goal.at_most is None) == lower:
            raise ValueError(
                f"goal of {goal.metric} needs `{'at_most' if lower else 'at_least'}`, and not the other"
            )
        costs, k = goal.costs, len(self.labels)
        if isinstance(costs, dict) and (
            k or set(costs) != {"under", "over"} or min(costs.values()) <= 0
        ):
            raise ValueError("goal.costs of a regression needs `under` and `over`, both above 0")
        if isinstance(costs, list) and (
            [len(row) for row in costs] != [k] * k or any(min(r) < 0 for r in costs)
        ):
            raise ValueError(
                f"goal.costs must be {k} rows of {k} costs, [true][answered], none below 0"
            )
        return self


class Trainer(Strict):
    """Arguments of `lightning.Trainer`; the presets lie in `configs/trainer` and `configs/debug`.

    `batches_per_step` is ours: callbacks are called for every so-manieth batch; see
    training/throughput.py.
    """

    accelerator: str
    devices: int | str
    num_nodes: int = 1
    strategy: str
    precision: str
    max_epochs: int
    max_steps: int = -1
    gradient_clip_val: float | None
    accumulate_grad_batches: int
    log_every_n_steps: int
    deterministic: bool
    enable_progress_bar: bool
    fast_dev_run: bool
    overfit_batches: int | float
    limit_train_batches: int | float
    limit_val_batches: int | float
    profiler: str | None
    detect_anomaly: bool
    batches_per_step: int = Field(gt=0)


class Training(Strict):
    """`checkpoint_seconds` is the longest time between two checkpoints: there is one after every
    epoch as well.

    With `streaming`, rows are read from the split's file while training, in `workers` processes:
    for data larger than memory.
    """

    batch_size: int = Field(gt=0)
    early_stopping_patience: int = Field(gt=0)
    num_threads: int = Field(gt=0)
    must_overfit: bool
    checkpoint_seconds: float = Field(gt=0)
    streaming: bool
    workers: int = Field(ge=0)


class Health(Strict):
    """T5: the number from which each sign is named; training/signs.py says what it counts."""

    not_finite: float
    exploding_gradients: float
    learning_rate_high: float
    dead_units: Share
    vanishing_gradients: float
    learning_rate_low: float
    loss_spike: float
    underfitting: float
    unfinished: float
    overfitting: float
    slower: Share
    waiting_for_data: Share
    memory_growing: float


class Dimension(Strict):
    """A range, of whole numbers where both ends are, or choices."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = Field(None, gt=0)
    choices: list[str | int | float | bool | None] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Dimension":
        if self.choices is not None:
            if self.model_dump(exclude_defaults=True).keys() != {
                "choices"
            }:  # a dump of it names the others as null
                raise ValueError("takes `choices` alone, or a range")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("needs `choices`, or `low` below `high`")
        elif self.log and (self.low <= 0 or self.step):
            raise ValueError("with `log` needs `low` above 0, and no `step`")
        return self


class Search(Strict):
    """T7: what `sweep` tries, and when it stops: whichever budget is spent first, or the goal
    reached.
    """

    space: dict[str, Dimension] = Field(min_length=1)
    pruner: Literal["median", "hyperband", "none"]
    warmup_epochs: int = Field(ge=0)
    max_trials: int = Field(gt=0)
    max_minutes: float = Field(gt=0)
    stop_at_goal: bool
    storage: str


class Tracking(Strict):
    uri: str
    experiment: str
    registered_model: str


class Cost(Strict):
    """M4: the mean cost of an answer, as a share of the cheapest answer that is always the same."""

    max_ratio: float


class Comparison(Strict):
    """M6: differences of the mean loss per row, in shares of a wrong answer or of the labels'
    variance.
    """

    alpha: Share
    margin: Share


class Perturbation(Strict):
    """M7: scores (accuracy or R²) as shares of the clean one; attacks move inputs by `epsilon` of
    their range.
    """

    severity: int = Field(ge=1, le=5)
    min_robustness: Share
    epsilon: float
    steps: int
    min_adversarial: Share


class Rate(Strict):
    """M8, M9: share of rows; a predicted value may move by `tolerance` standard deviations of the
    labels.
    """

    max_violations: Share
    tolerance: float = Field(ge=0)


class Calibration(Strict):
    """M10: limits on debiased gaps: of probabilities in bins, and of the coverage of intervals
    (regression).

    Beside them a limit on how many times too large the logits of a classifier may be.
    """

    bins: int = Field(gt=0)
    max_ece: Share
    max_gap: Share
    max_overconfidence: float = Field(ge=1)


class Confidence(Strict):
    """M11: `target_error` is that of the goal; sets miss a share `alpha`.

    `max_ratio` is of the area under risk over coverage to the mean loss: 1 where confidence says
    nothing.
    """

    target_error: float = Field(ge=0)
    alpha: float = Field(gt=0, lt=1)
    max_ratio: float


class Slices(Strict):
    """M12: `max_gap` between the mean loss in a slice and over all rows; `searched` slices found
    are reported.
    """

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


class Packaging(Strict):
    max_parity_error: float
    max_megabytes: float
    max_latency_ratio: float
    reference_rows: int


class Serving(Strict):
    host: str
    port: int
    max_body_bytes: int
    max_instances: int
    queue: int
    store_rows: int


class Monitoring(Strict):
    window: int = Field(gt=0)
    min_rows: int = Field(gt=0)
    alpha: Share
    max_error_rate: Share
    max_reference: int
    max_duplicates: Share
    max_contradictions: Share
    retrain_min_labels: int


class Settings(Strict):
    seed: int
    project: Project
    paths: Paths
    data: Data
    augmentation: Component | None
    model: Component
    optimizer: Component
    scheduler: Component | None
    loss: Component
    trainer: Trainer
    training: Training
    health: Health
    search: Search
    logger: dict[str, Component]
    tracking: Tracking
    evaluation: Evaluation
    packaging: Packaging
    serving: Serving
    monitoring: Monitoring


def parse(raw: dict[str, Any]) -> Settings:
    """Checks a composed configuration. Raises ValueError with one line per wrong key."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError("the configuration is wrong:\n  " + "\n  ".join(lines)) from None

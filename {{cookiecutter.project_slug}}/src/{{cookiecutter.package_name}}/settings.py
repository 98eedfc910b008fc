"""The typed configuration: composed by Hydra, converted once, frozen, and strict about unknown
keys.

No other module but `params`, which reads the composed file, sees a raw mapping.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Mark = Literal["keep", "hash", "drop"]
"""How reports show a column's values: as they are, as a short hash, or not at all."""


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
METRICS: dict[Kind, list[str]] = {
    "multiclass": [
        "accuracy",
        "precision_micro",
        "recall_micro",
        "f1_micro",
        "precision_macro",
        "recall_macro",
        "f1_macro",
        "cohen_kappa",
        "jaccard",
        "log_loss",
    ],
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
SCORE: dict[Kind, str] = {"multiclass": "accuracy", "binary": "accuracy", "regression": "r2"}
"""1 - mean loss per row."""
LOWER_IS_BETTER = {"log_loss", "fpr", "fnr", "mse", "rmse", "mae", "mape", "msle", "huber"}


# What was called otherwise in an earlier version: a verb, a choice or a key, and its name today.
RENAMED = {
    "augmentation=none": "augmentation=null",
    "bench": "one of `make bench-train` and the others of the template",
    "health.unfinished": "no sign of its own",
    "health.waiting_for_data": "no sign of its own",
    "logger.extra": "logger.<name>, a mapping of loggers,",
    "logger=mlflow": "logger=null",
    "training.early_stopping_patience": "training.callbacks.early_stopping.patience",
}
for _section in ["paths", "training", "health", "evaluation", "packaging", "serving", "monitoring"]:
    RENAMED[f"{_section}=default"] = "a section of configs/config.yaml, without other choices,"


class Project(Strict):
    name: str
    title: str  # for people
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

    `format` is that of dates as text, such as %d/%m/%Y; null: numbers, or ISO 8601.
    """

    column: str
    test_from: str | float | None = None
    format: str | None = None


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
    max_drift: NonNegativeFloat


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
    costs: list[list[NonNegativeFloat]] | dict[Literal["under", "over"], PositiveFloat] | None
    max_error_rate: Share
    target_error: NonNegativeFloat


class Data(Strict):
    """`labels` are the classes, for binary the positive one second; empty for regression.

    `missing` are words that stand for a missing value, beside the empty field; `decimal` and
    `thousands` are signs in numbers as text. A class of `allow_absent` may lack rows in a split.
    """

    name: str
    predicts: str = ""  # what a label is, in words, for the page, and the unit of a value
    unit: str = ""
    kind: Kind
    source: Component
    missing: list[str] = []
    decimal: str = Field(".", min_length=1, max_length=1)
    thousands: str = Field("", max_length=1)
    labels: list[str]
    allow_absent: list[str] = []
    features: dict[str, Any]
    goal: Goal
    split: Split
    checks: Checks

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Data":
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands must be two signs")
        goal, k = self.goal, len(set(self.labels))
        enough, wanted = {
            "multiclass": (k > 2, "three labels or more"),
            "binary": (k == 2, "two labels, the positive one second"),
            "regression": (k == 0, "no labels"),
        }[self.kind]
        if not enough or k != len(self.labels):
            raise ValueError(f"kind {self.kind} needs {wanted}")
        if goal.metric not in METRICS[self.kind]:
            raise ValueError(f"goal.metric must be one of {', '.join(METRICS[self.kind])}")
        bound = "at_most" if goal.metric in LOWER_IS_BETTER else "at_least"
        if goal.model_dump(include={"at_least", "at_most"}, exclude_none=True).keys() != {bound}:
            raise ValueError(f"goal of {goal.metric} needs `{bound}`, and not the other")
        if isinstance(goal.costs, list) and [len(row) for row in goal.costs] != [k] * k:
            raise ValueError(f"goal.costs must be {k} rows of {k} costs, [true][answered]")
        if isinstance(goal.costs, dict) and (k or len(goal.costs) < 2):
            raise ValueError("goal.costs of a regression needs `under` and `over`")
        return self


class Trainer(Strict):
    """Arguments of `lightning.Trainer`; the presets lie in `configs/trainer` and `configs/debug`.

    `batches_per_step` is ours: above 1, how many batches a call of `training_step` takes, for
    small networks.
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
    batches_per_step: PositiveInt

    @model_validator(mode="after")
    def _trains(self) -> "Trainer":
        for key in ("max_epochs", "max_steps", "limit_train_batches"):
            if getattr(self, key) == 0:
                raise ValueError(f"{key}=0 trains nothing: give it more, or leave it out")
        return self


class Training(Strict):
    """`checkpoint_seconds` is the longest time between two checkpoints: there is one after every
    epoch as well.

    With `streaming`, rows are read from the split's file while training, in `workers` processes:
    for data larger than memory. `module` is a LightningModule of your own in place of the
    project's, which keeps the network that it is given.
    """

    module: Component | None = None
    batch_size: PositiveInt
    num_threads: PositiveInt
    must_overfit: bool
    checkpoint_seconds: PositiveFloat
    streaming: bool
    workers: NonNegativeInt
    callbacks: dict[str, Component | None]


class Health(Strict):
    """T5: the number from which each sign is named; training/health.py says what it counts."""

    not_finite: float
    exploding_gradients: float
    dropout_high: Share
    weights_shrink: float
    learning_rate_high: float
    dead_units: Share
    vanishing_gradients: float
    learning_rate_low: float
    loss_spike: float
    underfitting: float
    overfitting: float
    slower: Share
    memory_growing: float


class Dimension(Strict):
    """A range, of whole numbers where both ends are, or choices."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: PositiveInt | PositiveFloat | None = None
    choices: list[str | int | float | bool | None] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Dimension":
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("needs `choices`, or `low` and `high`")
        return self


class Search(Strict):
    """T7: what `sweep` tries, and when it stops: whichever budget is spent first, or the goal
    reached.
    """

    space: dict[str, Dimension] = {}  # `sweep` alone composes one
    pruner: Literal["median", "hyperband", "none"] = "median"
    warmup_epochs: NonNegativeInt = 3
    max_trials: PositiveInt = 20
    max_minutes: PositiveFloat = 10
    stop_at_goal: bool = False
    storage: str = "sqlite:///store/search.db"


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
    tolerance: NonNegativeFloat


class Calibration(Strict):
    """M10: limits on debiased gaps: of probabilities in bins, and of the coverage of intervals
    (regression).

    Beside them a limit on how many times too large the logits of a classifier may be.
    """

    bins: PositiveInt
    max_ece: Share
    max_gap: Share
    max_overconfidence: float = Field(ge=1)


class Confidence(Strict):
    """M11: `target_error` is that of the goal; sets miss a share `alpha`.

    `max_ratio` is of the area under risk over coverage to the mean loss: 1 where confidence says
    nothing.
    """

    target_error: NonNegativeFloat
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
    window: PositiveInt
    min_rows: PositiveInt
    alpha: Share
    max_error_rate: Share
    max_reference: int
    max_duplicates: Share
    max_contradictions: Share
    retrain_min_labels: int


# The sections that weights follow from, beside seed and data.
LEARNS = ("augmentation", "loss", "model", "optimizer", "scheduler", "trainer", "training")


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
    search: Search = Search()
    logger: dict[str, Component]
    tracking: Tracking
    evaluation: Evaluation
    packaging: Packaging
    serving: Serving
    monitoring: Monitoring

    def changed(self, section: str, **values: Any) -> "Settings":
        """The same with other values in one section."""
        part = getattr(self, section).model_copy(update=values)
        return self.model_copy(update={section: part})

    def below(self, folder: Path) -> "Settings":
        """The same for a training that writes into a folder of its own."""
        return self.changed("paths", **{n: folder / n for n in ("model", "reports", "state")})


def refuse_renamed(words: list[str]) -> None:
    """Raises ValueError that names what took the place of a verb, a choice or a key."""
    for word in words:
        for name in (word, word.partition("=")[0]):
            if name in RENAMED:
                raise ValueError(f"{name} is {RENAMED[name]} now")


def problems(error: ValidationError) -> list[str]:
    """A line for each wrong key, without the whole input that pydantic quotes."""
    lines = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"])) or error.title
        lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    return lines


def parse(raw: dict[str, Any]) -> Settings:
    """Checks a composed configuration. Raises ValueError with one line per wrong key."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        text = "; ".join(problems(error))
        raise ValueError(f"the configuration is wrong: {text}") from None

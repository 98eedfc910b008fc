"""The typed configuration: composed by Hydra, converted once, frozen, and strict about unknown keys.

`params.yaml` is the composed configuration that DVC sees. Every verb reads it here; no other module sees a raw mapping.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

PARAMS = Path("params.yaml")


class Strict(BaseModel):
    """Frozen, and refuses unknown keys: a typing mistake in a configuration file is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _has_target(value: dict[str, Any]) -> dict[str, Any]:
    if "_target_" not in value:
        raise ValueError("needs `_target_`, the dotted name of the class or function to call")
    return value


Component = Annotated[dict[str, Any], AfterValidator(_has_target)]
"""A class or function named by `_target_`, with its keyword arguments: `hydra.utils.instantiate` builds it."""

Kind = Literal["multiclass"]
Share = Annotated[float, Field(ge=0, le=1)]


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
    logs: Path
    store: Path
    audit: Path


class Split(Strict):
    key: str
    fractions: dict[Literal["train", "val", "calibration", "test"], Share]
    max_class_deviation: Share


class Checks(Strict):
    """Limits of the completeness and label checks, as shares of the rows."""

    max_missing: Share
    max_unlabeled: Share
    max_duplicates: Share
    min_class_share: Share


class Data(Strict):
    name: str
    kind: Kind
    source: Component
    labels: list[str]
    features: dict[str, Any]
    split: Split
    checks: Checks


class Trainer(Strict):
    """Arguments of `lightning.Trainer`; the presets lie in `configs/trainer` and `configs/debug`."""

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


class Training(Strict):
    batch_size: int = Field(gt=0)
    early_stopping_patience: int = Field(gt=0)
    num_threads: int = Field(gt=0)
    must_overfit: bool


class Logger(Strict):
    """Where epoch metrics go beside MLflow, which always keeps the record."""

    extra: Component | None


class Tracking(Strict):
    uri: str
    experiment: str
    registered_model: str


class Comparison(Strict):
    alpha: Share
    margin: Share


class Perturbation(Strict):
    severity: int = Field(ge=1, le=5)
    min_robustness: Share
    epsilon: float
    steps: int
    min_adversarial: Share


class Rate(Strict):
    max_violations: Share


class Calibration(Strict):
    bins: int
    max_ece: Share


class Confidence(Strict):
    target_error: Share
    alpha: Share
    max_aurc: Share


class Slices(Strict):
    min_size: int
    alpha: Share
    max_gap: Share


class Evaluation(Strict):
    primary_metric: str
    min_primary: float
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
    logger: Logger
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


def load(overrides: list[str] | None = None) -> Settings:
    """Settings from `params.yaml` in the working directory, with `dotted.key=value` overrides on top."""
    if not PARAMS.is_file():
        raise ValueError(f"no {PARAMS} here: run this in the project's root folder")
    try:
        raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{PARAMS} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{PARAMS} is empty: `git checkout {PARAMS}` brings the last committed one back")
    for override in overrides or []:
        _apply(raw, override)
    return parse(raw)


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    *parents, last = key.split(".")
    node: Any = raw
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if not separator or not isinstance(node, dict) or last not in node:
        raise ValueError(
            f"unknown override {override!r}: write an existing key of {PARAMS}, such as `serving.port=9000`"
        )
    if isinstance(node[last], dict):
        raise ValueError(
            f"{key!r} is a group: choose groups with `pipeline {override}` or `train {override}`, which compose"
        )
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"the value of {override!r} is not valid YAML") from None

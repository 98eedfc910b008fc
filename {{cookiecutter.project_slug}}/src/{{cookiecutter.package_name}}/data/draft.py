"""A draft of a data set's configuration, as text."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import yaml

from .sources import as_text

FRACTIONS = {  # of up to so many rows: a test part that is large enough to judge by
    2_000: "{train: 0.45, val: 0.1, calibration: 0.1, test: 0.35}",
    20_000: "{train: 0.6, val: 0.1, calibration: 0.1, test: 0.2}",
    math.inf: "{train: 0.8, val: 0.05, calibration: 0.05, test: 0.1}",
}
POSITIVE = {"yes", "true", "1", "1.0", "positive", "y", "t"}
MOST_CLASSES = 20


@dataclass
class Draft:
    """What is to be written; `features` are lines of YAML."""

    path: str
    choice: str
    source: dict[str, Any]
    label: pd.Series
    written: dict[str, Any] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)  # that may be personal
    split_key: str = "content"
    split_reason: str = "rows with equal content share a split; or a column that names groups"
    time: str = "null"
    time_reason: str = "or {column: day}, for a test on the newest rows"
    max_near: float = 0.01
    experiment: list[str] = field(default_factory=list)
    missing_shares: list[float] = field(default_factory=list)
    duplicates: float = 0.0
    conflicts: float = 0.0
    unsure: list[str] = field(default_factory=list)


def believed(values: pd.Series) -> tuple[str, str]:
    """A lowest and a highest number, a little beyond those that are there and rounded outwards."""
    values = values[np.isfinite(values.astype(float))]
    low, high = float(values.min()), float(values.max())
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)) - 1)
    margin = 0.05 * (high - low)
    if (values % 1 == 0).all():
        step = max(step, 1.0)
        margin = margin if high - low > 1 else 0  # 0 and 1 are all there is of a flag
    down, up = (math.floor((low - margin) / step) * step, math.ceil((high + margin) / step) * step)
    if low >= 0:
        down = max(down, 0)
    decimals = max(0, -math.floor(math.log10(step)))
    return f"{down:.{decimals}f}", f"{up:.{decimals}f}"


def quoted(value: Any) -> str:
    """A value as YAML takes it, in which no `${` is an interpolation."""
    return json.dumps(value, ensure_ascii=False).replace("${", r"\\${")


def key(name: str) -> str:
    """A name as a key of YAML, which takes `no` and `null` for other things."""
    plain = re.fullmatch(r"[A-Za-z]\w*", name) and yaml.safe_load(name) == name
    return name if plain else json.dumps(name, ensure_ascii=False)


def data_yaml(name: str, data: Draft) -> str:
    """The draft of configs/data/<name>.yaml."""
    label = data.label.dropna()
    described = values_of(label) if is_value(label) else classes_of(label, data.unsure)
    missing = max([0.0, *data.missing_shares])
    fractions = next(text for most, text in FRACTIONS.items() if len(label) <= most)
    # Twice the standard error of a share in the smallest part, whose rows come in equal groups.
    different = len(label) * (1 - data.duplicates)
    deviation = 0.1 + 2 / math.sqrt(max(1, 0.1 * different))
    if data.time != "null":
        deviation = 1  # what is newest differs
    extra = [f"{key}: {quoted(value)}" for key, value in data.written.items()]
    lines = [
        f"# Drafted by `describe` from {len(data.label)} rows of {data.path}. Yours from here on.",
        f"name: {name}",
        f"predicts: {quoted(data.source.get('label', ''))}  # a label, in words, for the page",
        *described["head"],
        f"source: {quoted(data.source)}",
        *extra,
        "features:",
        *data.features,
        "  personal:                # in reports: keep a value as it is, hash it, or drop it",
        *(f"    {key(name)}: keep" for name in data.columns),
        "goal:",
        *described["goal"],
        "split:",
        f"  key: {quoted(data.split_key)}  # {data.split_reason}",
        f"  fractions: {fractions}",
        f"  time: {data.time}  # {data.time_reason}",
        f"  max_label_deviation: {min(1.0, round(deviation, 2))}",
        f"  max_near_duplicates: {data.max_near}",
        "checks:",
        f"  max_missing: {limit(missing)}  # now at most {missing:.2f}",
        f"  max_unlabeled: {limit(float(data.label.isna().mean()))}",
        f"  max_duplicates: {limit(data.duplicates)}",
        f"  max_conflicts: {limit(data.conflicts)}   # equal rows with different labels",
        *described["checks"],
        "  max_drift: 0.25",
    ]
    return "\n".join(lines) + "\n"


def limit(share: float) -> float:
    """A limit a little above the share that is there: feedback will add some."""
    return min(1.0, math.ceil(1200 * share) / 1000 + 0.01)


def is_value(label: pd.Series) -> bool:
    """Whether a label is a number on a scale: of numbers that are not whole, or very many."""
    if not pd.api.types.is_numeric_dtype(label) or pd.api.types.is_bool_dtype(label):
        return False
    return bool(label.nunique() > MOST_CLASSES or (label % 1 != 0).any())


def values_of(label: pd.Series) -> dict[str, list[str]]:
    low, high = believed(label)
    return {
        "head": ['unit: ""  # of the label, such as EUR', "kind: regression", "labels: []"],
        "goal": [
            "  metric: r2",
            "  at_least: 0.1            # of the variance explained: raise it to what is of use",
            "  costs: null              # or {under: 2, over: 1}: too low costs twice as much",
            "  max_error_rate: 0.2      # of feedback: true values outside of the interval",
            "  target_error: 0.8        # of the variance, over what it does not abstain from",
        ],
        "checks": ["  min_class_share: 0.0", f"  label_range: [{low}, {high}]"],
    }


def classes_of(label: pd.Series, unsure: list[str]) -> dict[str, list[str]]:
    counts = as_text(label).value_counts()
    if len(counts) < 2:
        raise ValueError(
            f"the label has one value or none, {[*counts.index]}: name another by --label"
        )
    if len(counts) > 10 * MOST_CLASSES:
        raise ValueError(
            f"the label has {len(counts)} different texts: name another column by --label"
        )
    names, usual = sorted(counts.index), float(counts.max() / counts.sum())
    floor = math.floor(100 * usual) / 100
    if len(names) == 2:
        positive = [name for name in names if name.lower() in POSITIVE] or [counts.index[-1]]
        names = [*(name for name in names if name != positive[0]), positive[0]]
        unsure.append(f"the class to find, which stands second in `labels`: {names[1]!r}")
    rare = {name: int(counts[name]) for name in names if counts[name] < 10}
    if rare:
        unsure.append(f"classes of under ten rows: {rare}: collect more, merge or leave them out")
    classes = ", ".join(f"{name} {counts[name]}" for name in names)
    return {
        "head": [
            f"kind: {'binary' if len(names) == 2 else 'multiclass'}",
            f"labels: {quoted(names)}  # rows: {classes}",
        ],
        "goal": [
            "  metric: accuracy",
            f"  at_least: {floor}  # what always {counts.index[0]!r} reaches",
            "  costs: null              # every error costs the same; or rows of [true][answered]",
            f"  max_error_rate: {round(1 - usual, 2)}  # of feedback, in service: more is an alarm",
            f"  target_error: {round((1 - usual) / 2, 2)}  # of what it does not abstain from",
        ],
        "checks": [
            f"  min_class_share: {math.floor(500 * counts.min() / counts.sum()) / 1000}",
            "  label_range: null",
        ],
    }


def experiment_yaml(name: str, data: Draft) -> str:
    """The draft of configs/experiment/<name>.yaml."""
    gap = 3.0 if is_value(data.label.dropna()) else 0.3  # a value's loss has no natural scale
    lines = [
        "# @package _global_",
        f"# make pipeline EXPERIMENT={name}",
        "defaults:",
        f"  - override /source: {data.choice}",
        f"  - override /data: {name}",
        *data.experiment,
        "evaluation:  # milder than for the demo, for a first look; make them yours",
        "  perturbation: {min_robustness: 0.3, min_adversarial: 0.0}",
        "  invariance: {max_violations: 0.2}",
        "  direction: {max_violations: 0.2}",
        "  calibration: {max_ece: 0.1}",
        f"  slices: {quoted({'max_gap': gap})}",
    ]
    return "\n".join(lines) + "\n"

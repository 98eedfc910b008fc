"""A draft of a data set's configuration, as text."""

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass
class Draft:
    """What is to be written; `features` are lines of YAML."""

    path: str
    choice: str
    source: dict[str, Any]
    label: pd.Series
    written: dict[str, Any] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    split_key: str = "content"
    split_reason: str = "rows with equal content share a split; or a column that names groups"
    time_hint: str = "or {column: day}, for a test on the newest rows"
    max_near: float = 0.01
    experiment: list[str] = field(default_factory=list)
    missing_shares: list[float] = field(default_factory=list)
    duplicates: float = 0.0
    conflicts: float = 0.0
    unsure: list[str] = field(default_factory=list)


def believed(values: pd.Series) -> tuple[str, str]:
    """A lowest and a highest number, a little beyond those that are there and rounded outwards."""
    low, high = float(values.min()), float(values.max())
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)) - 1)
    margin = 0.05 * (high - low)
    down, up = (math.floor((low - margin) / step) * step, math.ceil((high + margin) / step) * step)
    if low >= 0:
        down = max(down, 0)
    digits = max(0, -math.floor(math.log10(step)))
    return f"{down:.{digits}f}", f"{up:.{digits}f}"


def quoted(value: Any) -> str:
    """A value as YAML takes it."""
    return json.dumps(value, ensure_ascii=False)


def key(name: str) -> str:
    """A name as a key of YAML."""
    return name if re.fullmatch(r"[A-Za-z]\w*", name) else quoted(name)

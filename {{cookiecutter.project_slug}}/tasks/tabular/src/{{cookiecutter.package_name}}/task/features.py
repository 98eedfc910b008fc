"""Tables as model inputs: training, the server and the monitor run this code, on numpy alone."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, model_validator

Inputs = dict[str, NDArray[np.float32]]
NOT_FEATURES = ("id", "label", "content")
MAX_TEXT = 200  # characters of a value in a request


class Features(BaseModel):
    """The table's columns: numeric ones with their lowest and highest value, categorical ones with
    their values.

    Those in `optional` may be missing; any other value is required, in the data and in a request.
    `examples` are request items that the page offers to fill in: they are public, so no real
    person's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    numeric: dict[str, tuple[float, float]] = {}
    categorical: dict[str, list[str]] = {}
    optional: list[str] = []
    examples: list[dict[str, float | str | None]] = []

    @model_validator(mode="after")
    def _consistent(self) -> "Features":
        wrong = [name for name, (low, high) in self.numeric.items() if not low < high]
        wrong += [name for name, v in self.categorical.items() if not 0 < len(v) == len({*v})]
        problems = {
            "columns need names of their own": [
                name for name in self.names if name in NOT_FEATURES or self.names.count(name) > 1
            ],
            "there must be one column": [] if self.names else ["none"],
            "`optional` names columns that do not exist": sorted({*self.optional} - {*self.names}),
            "these need a lowest below a highest value, or values that differ": wrong,
        }
        for problem, columns in problems.items():
            if columns:
                raise ValueError(f"{problem}: {columns}")
        for example in self.examples:
            check_instance(Instance(example), self)
        return self

    @property
    def names(self) -> list[str]:
        """All columns, in the order of the raw table."""
        return [*self.numeric, *self.categorical]

    @property
    def ranges(self) -> NDArray[np.float32]:
        """Lowest and highest value of each numeric column, [2, d]."""
        return np.array([*self.numeric.values()], np.float32).reshape(-1, 2).T

    @property
    def may_miss(self) -> NDArray[np.bool_]:
        """Which numeric columns are optional, [d]."""
        return np.array([name in self.optional for name in self.numeric], bool)

    @property
    def blocks(self) -> dict[str, slice]:
        """Where each categorical column lies in the one-hot input."""
        ends = np.cumsum([0, *map(len, self.categorical.values())]).tolist()
        return dict(zip(self.categorical, map(slice, ends, ends[1:]), strict=False))


def _value(value: Any) -> float | str | None:
    if value is None or (isinstance(value, str) and len(value) <= MAX_TEXT):
        return value
    if type(value) in (int, float) and abs(value) < 1e300:
        return float(value)
    raise ValueError(f"must be a finite number, a text of at most {MAX_TEXT} characters, or null")


Value = Annotated[
    float | str | None, BeforeValidator(_value, json_schema_input_type=float | str | None)
]
Column = Annotated[str, Field(max_length=MAX_TEXT)]


class Instance(RootModel[Annotated[dict[Column, Value], Field(min_length=1)]]):
    """One item of a request: values by column; a column that is null or left out is missing."""

    model_config = ConfigDict(frozen=True)


def check_instance(instance: Instance, features: Features) -> None:
    """Raises ValueError that begins with the column's name and says the rule which its value
    breaks.
    """
    for name in {*instance.root} - {*features.names}:
        raise ValueError(f"{name}: unknown column, must be one of {', '.join(features.names)}")
    for name in features.names:
        value, texts = instance.root.get(name), features.categorical.get(name)
        low, high = features.numeric.get(name, (0, 0))
        if value is None:
            if name not in features.optional:
                raise ValueError(f"{name}: must not be missing")
        elif texts and value not in texts:
            raise ValueError(f"{name}: must be one of the texts {', '.join(texts)}")
        elif not texts and not (isinstance(value, float) and low <= value <= high):
            raise ValueError(f"{name}: must be a number from {low:g} to {high:g}")


def instance_schema(features: Features) -> dict[str, Any]:
    """JSON schema of a request item; the page builds its form from it."""
    properties: dict[str, dict[str, Any]] = {
        name: {"type": "number", "minimum": low, "maximum": high}
        for name, (low, high) in features.numeric.items()
    }
    properties |= {
        name: {"type": "string", "enum": values} for name, values in features.categorical.items()
    }
    for name in features.optional:
        properties[name] = {"anyOf": [properties[name], {"type": "null"}]}
    return {
        "title": "Instance",
        "type": "object",
        "properties": properties,
        "required": [name for name in features.names if name not in features.optional],
        "additionalProperties": False,
        "examples": features.examples,
    }


def encode(columns: Mapping[str, Sequence[Any]], features: Features) -> Inputs:
    """Model inputs, all float32, of columns of n values, where None and NaN are missing.

    "numeric" [n, d] is 0 where "missing" [n, d] is 1; "categorical" holds the one-hot columns side
    by side, all 0 for a missing or unknown value. A table without numeric or categorical columns
    has no such inputs. A column that is absent is missing in all rows. Raises KeyError for one that
    is not optional, ValueError for one that should hold numbers.
    """
    inputs, some = Inputs(), columns[next(iter(columns))]
    columns = dict.fromkeys(features.optional, [None] * len(some)) | {
        n: columns[n] for n in columns
    }
    if features.numeric:
        values = np.stack([_numbers(name, columns[name]) for name in features.numeric], axis=1)
        missing = np.isnan(values)
        inputs["numeric"] = np.where(missing, 0, values).astype(np.float32)
        inputs["missing"] = missing.astype(np.float32)
    if features.categorical:
        one_hot = [
            np.asarray(columns[name], object)[:, None] == np.asarray(texts, object)
            for name, texts in features.categorical.items()
        ]
        inputs["categorical"] = np.concatenate(one_hot, axis=1).astype(np.float32)
    return inputs


def _numbers(name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    array = np.asarray(values)
    texts = array.dtype == object and any(isinstance(value, str | bool) for value in array)
    if array.dtype.kind not in "iufO" or texts:
        raise ValueError(f"{name}: must be numbers")
    return array.astype(np.float64)


def instance_to_row(instance: Instance) -> dict[str, Any]:
    """Raw columns, without key and label, of one request item: those that it names."""
    return dict(instance.root)


def row_to_instance(row: Mapping[str, Any]) -> dict[str, Any]:
    """The request item, ready for JSON, that a client would send for a raw row."""
    values = {name: value for name, value in row.items() if name not in NOT_FEATURES}
    return {name: value if value == value else None for name, value in values.items()}  # not NaN


def inputs_to_instances(inputs: Inputs, features: Features) -> list[dict[str, Any]]:
    """Request items for model inputs [n, ...], for replaying changed examples and for storing
    tensors.
    """
    columns: dict[str, list[Any]] = {}
    for j, name in enumerate(features.numeric):
        # The shortest text of a float32: 0.1, not 0.10000000149, which could leave the column's
        # range.
        numbers = zip(inputs["numeric"][:, j], inputs["missing"][:, j], strict=True)
        columns[name] = [None if missing else float(str(x)) for x, missing in numbers]
    for name, block in features.blocks.items():
        chosen = [*features.categorical[name], None]
        columns[name] = [chosen[i] for i in _indices(inputs["categorical"][:, block])]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _indices(one_hot: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of the category [n] in one-hot [n, k], k where there is none."""
    return np.asarray(np.where(one_hot.any(axis=1), one_hot.argmax(axis=1), one_hot.shape[1]))


def signals(inputs: Inputs, features: Features) -> dict[str, NDArray[np.float64]]:
    """Scalars per row, each [n], that the drift monitor watches: every column, and how many values
    are missing.

    A missing number counts as the column's lowest: the test that compares distributions sees it
    best at an end. A category counts as its place in the list, a missing or unknown one as the
    place after the last.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if features.numeric:
        filled = np.where(inputs["missing"] > 0, features.ranges[0], inputs["numeric"])
        found = dict(zip(features.numeric, filled.astype(np.float64).T, strict=True))
        found["missing values"] = inputs["missing"].sum(axis=1, dtype=np.float64)
    for name, block in features.blocks.items():
        found[name] = _indices(inputs["categorical"][:, block]).astype(np.float64)
    return found

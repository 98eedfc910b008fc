"""Tables as model inputs: training, the server and the monitor run this code, on numpy alone."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, model_validator

from ..settings import Mark
from .dates import Dates

Inputs = dict[str, NDArray[np.float32]]
LIBRARIES = ()  # beside numpy and pydantic
FILE_COLUMN = None  # a file is a table here
NOT_FEATURES = ("id", "label", "content")
MAX_TEXT = 200  # characters of a value in a request
OTHER = "(other)"  # stands for a value that is not listed
COARSE = 1e-4  # of a number's range: a rounding by more is told


def _value(value: Any) -> float | str | None:
    if value is None or (isinstance(value, str) and len(value) <= MAX_TEXT):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise ValueError(
            f"must be a finite number, a text of at most {MAX_TEXT} characters, or null"
        )
    return float(value)


Value = Annotated[
    float | str | None, BeforeValidator(_value, json_schema_input_type=float | str | None)
]


class Features(BaseModel):
    """The table's columns: numeric ones with their lowest and highest value, categorical ones with
    their values, and dates.

    Those in `optional` may be missing; any other value is required, in the data and in a request.
    In the categorical columns in `others`, all values that are not listed count as one.
    `examples` are request items that the page offers to fill in: they are public, so no real
    person's. `personal` says of any column, the key among them, how reports show its values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", title="data.features")
    numeric: dict[str, tuple[float, float]] = {}
    categorical: dict[str, list[str]] = {}
    dates: dict[str, Dates] = {}
    others: list[str] = []
    optional: list[str] = []
    examples: list[dict[str, Value]] = []
    personal: dict[str, Mark] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "Features":
        twice = [name for name in self.names if name in NOT_FEATURES or self.names.count(name) > 1]
        if twice or not self.names:
            raise ValueError(f"columns need names of their own, and there must be one: {twice}")
        if unknown := sorted(
            {*self.optional} - {*self.names} | {*self.others} - {*self.categorical}
        ):
            raise ValueError(f"`optional` or `others` names columns that do not exist: {unknown}")
        wrong = [name for name, (low, high) in self.numeric.items() if not low < high]
        wrong += [
            name
            for name, values in self.categorical.items()
            if len({*values}) != len(values) or not values
        ]
        if wrong:
            raise ValueError(
                f"these need a lowest below a highest value, or values that differ: {wrong}"
            )
        for number, example in enumerate(self.examples, 1):
            try:
                check_instance(Instance(example), self)
            except ValueError as error:
                raise ValueError(f"example {number}: {error}") from None
        return self

    @property
    def names(self) -> list[str]:
        """All columns, in the order of the raw table."""
        return [*self.numeric, *self.categorical, *self.dates]

    @cached_property  # every request asks for it
    def numbers(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each element of the input "numeric": the numeric columns,
        and the parts of dates, such as "sold hour".
        """
        parts = {
            f"{name} {part}": limits
            for name, dates in self.dates.items()
            for part, limits in dates.numbers.items()
        }
        return {**self.numeric, **parts}

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """What is subtracted from each number before it becomes a float32, [d]: the middle of its
        range. Otherwise 1,700,000,000 s and a minute more would be the same number.
        """
        return np.array([(low + high) / 2 for low, high in self.numbers.values()])

    @cached_property
    def ranges(self) -> NDArray[np.float32]:
        """Lowest and highest value of each element of "numeric", less the centre, [2, d]."""
        ends = np.array([*self.numbers.values()]).reshape(-1, 2).T
        return np.asarray(ends - self.centre, np.float32)

    @cached_property
    def may_miss(self) -> NDArray[np.bool_]:
        """Which elements of "numeric" are optional columns, [d]."""
        return np.array([name in self.optional for name in self.numbers], bool)

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """Where each categorical column lies in the one-hot input; the others come last in it."""
        blocks, start = {}, 0
        for name, values in self.categorical.items():
            end = start + len(values) + (name in self.others)
            blocks[name], start = slice(start, end), end
        return blocks


class Instance(
    RootModel[
        Annotated[dict[Annotated[str, Field(max_length=MAX_TEXT)], Value], Field(min_length=1)]
    ]
):
    """One item of a request: values by column; a column that is null or left out is missing."""

    model_config = ConfigDict(frozen=True)


def check_instance(instance: Instance, features: Features) -> None:
    """Raises ValueError that begins with the column's name and says the rule which its value
    breaks.
    """
    for name in instance.root:
        if name not in features.names:
            raise ValueError(f"{name}: unknown column, must be one of {', '.join(features.names)}")
    for name in features.names:
        value = instance.root.get(name)
        if value is None:
            if name not in features.optional:
                raise ValueError(f"{name}: must not be missing")
        elif name in features.dates:
            try:
                features.dates[name].read(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        elif name in features.categorical:
            values = features.categorical[name]
            if not isinstance(value, str) or (value not in values and name not in features.others):
                raise ValueError(f"{name}: must be one of the texts {', '.join(values)}")
        else:
            low, high = features.numeric[name]
            if not isinstance(value, float) or not low <= value <= high:
                raise ValueError(f"{name}: must be a number from {low:.17g} to {high:.17g}")


def instance_schema(features: Features) -> dict[str, Any]:
    """JSON schema of a request item; the page builds its form from it."""
    properties: dict[str, dict[str, Any]] = {
        name: {"type": "number", "minimum": low, "maximum": high}
        for name, (low, high) in features.numeric.items()
    }
    for name, values in features.categorical.items():
        properties[name] = {
            "type": "string",
            "examples" if name in features.others else "enum": values,
        }
    for name, dates in features.dates.items():
        properties[name] = {"type": "string", "examples": [dates.example()]}
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

    "numeric" [n, d], less `features.centre`, is 0 where "missing" [n, d] is 1; "categorical" holds
    the one-hot columns side by side, all 0 for a missing or unknown value. A table without numbers
    or categorical columns has no such inputs. A column that is absent is missing in all rows.
    Raises KeyError for one that is not optional, ValueError for one that should hold numbers or
    dates.
    """
    inputs: Inputs = {}
    gap = [None] * len(columns[next(iter(columns))])
    columns = {name: columns[name] for name in columns} | {
        n: gap for n in features.optional if n not in columns
    }
    if features.numbers:
        numeric = [_numbers(name, columns[name])[:, None] for name in features.numeric]
        dates = [_dates(columns[name], rule) for name, rule in features.dates.items()]
        inputs |= centred(np.concatenate([*numeric, *dates], axis=1), features)
    if features.categorical:
        one_hot = [_one_hot(columns[name], name, features) for name in features.categorical]
        inputs["categorical"] = np.concatenate(one_hot, axis=1).astype(np.float32)
    return inputs


def centred(values: NDArray[np.float64], features: Features) -> Inputs:
    """The inputs "numeric" and "missing" of numbers [n, d], NaN where one is missing."""
    missing = np.isnan(values)
    numeric = np.where(missing, 0, values - features.centre)
    return {"numeric": numeric.astype(np.float32), "missing": missing.astype(np.float32)}


def _one_hot(values: Sequence[Any], name: str, features: Features) -> NDArray[np.bool_]:
    texts = np.asarray(values, dtype=object)[:, None]
    known = np.array(features.categorical[name], dtype=object)[None, :]
    listed: NDArray[np.bool_] = texts == known
    if name not in features.others:
        return listed
    missing = np.array([[text is None or text != text] for text in texts[:, 0]], bool)
    other = ~listed.any(axis=1, keepdims=True) & ~missing.reshape(-1, 1)
    return np.concatenate([listed, other], axis=1)


def _dates(values: Sequence[Any], rule: Dates) -> NDArray[np.float64]:
    """The numbers of dates [n, parts]; equal texts are read once."""
    texts = ["" if value is None or value != value else value for value in values]
    nothing = [math.nan] * len(rule.numbers)
    encoded = {text: rule.encode(text) if text else nothing for text in {*texts}}
    return np.array([encoded[text] for text in texts], np.float64).reshape(len(texts), -1)


def _numbers(name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "iufO" or (
        array.dtype.kind == "O" and any(isinstance(v, str | bool) for v in array)
    ):
        raise ValueError(f"{name}: must be numbers")
    return array.astype(np.float64)


def instance_to_row(instance: Instance) -> dict[str, Any]:
    """Raw columns, without key and label, of one request item: those that it names."""
    return dict(instance.root)


def row_to_instance(row: Mapping[str, Any], features: Features) -> dict[str, Any]:
    """The request item, ready for JSON, that a client would send for a raw row."""
    values = {name: row[name] for name in features.names if name in row}
    for name, value in values.items():
        if value != value:  # NaN
            values[name] = None
        elif name not in features.numeric and not isinstance(value, str | None):
            values[name] = written(value)
    return values


def written(value: Any) -> str:
    """A category or date as text, such as 7 for the whole number 7.0."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(int(value)) if isinstance(value, float) and value % 1 == 0 else str(value)


def inputs_to_instances(inputs: Inputs, features: Features) -> list[dict[str, Any]]:
    """Request items for model inputs [n, ...], for replaying changed examples and for storing
    tensors.
    """
    n = len(next(iter(inputs.values())))
    columns: dict[str, list[Any]] = {}
    for name, values in raw_numbers(inputs, features).items():
        columns[name] = [None if math.isnan(value) else value for value in values.tolist()]
    for name, block in features.blocks.items():
        chosen = [*features.categorical[name], *[OTHER][: name in features.others], None]
        columns[name] = [chosen[i] for i in _indices(inputs["categorical"][:, block])]
    for name, dates in features.dates.items():
        parts = np.array([columns.pop(f"{name} {part}") for part in dates.numbers], float).T
        columns[name] = [None if np.isnan(row).any() else dates.decode(row) for row in parts]
    return [{name: columns[name][i] for name in features.names} for i in range(n)]


def raw_numbers(inputs: Inputs, features: Features) -> dict[str, NDArray[np.float64]]:
    """The elements of the input "numeric" as they were in the table, each [n], NaN where one is
    missing: as exact as a float32 keeps them of the column's range, and inside it.
    """
    numbers = {}
    for j, (name, (low, high)) in enumerate(features.numbers.items()):
        decimals = 6 - math.floor(math.log10(high - low))
        values = inputs["numeric"][:, j].astype(np.float64) + features.centre[j]
        values = np.clip(np.round(values, decimals), low, high)
        numbers[name] = np.where(inputs["missing"][:, j] > 0, np.nan, values)
    return numbers


def tensor_types(features: Features) -> dict[str, str]:
    """Datatype of each input that a client of /v2 sends, where it is not FP32: FP64 where a float32
    cannot tell the numbers of a range apart.
    """
    for low, high in features.numbers.values():
        rounding = float(np.spacing(np.float32(max(abs(low), abs(high))))) / 2
        if rounding > COARSE * (high - low):
            return {"numeric": "FP64"}
    return {}


def from_tensors(
    tensors: Mapping[str, NDArray[np.float64]], single: set[str], features: Features
) -> Inputs:
    """Model inputs of what a client of /v2 sends: "numeric" holds numbers as they are in the table.
    Raises ValueError where an input of `single`, sent as FP32, lost more than a little.
    """
    inputs = {name: values.astype(np.float32) for name, values in tensors.items()}
    if "numeric" in tensors:
        numbers, width = tensors["numeric"], np.ptp(features.ranges, axis=0)
        if "numeric" in single and (np.abs(inputs["numeric"] - numbers) > COARSE * width).any():
            raise ValueError("numeric: a float32 would round these numbers: send FP64")
        inputs |= centred(np.where(tensors["missing"] > 0, np.nan, numbers), features)
    return inputs


def _indices(one_hot: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of the category [n] in one-hot [n, k], k where there is none."""
    return np.asarray(np.where(one_hot.max(axis=1) > 0, one_hot.argmax(axis=1), one_hot.shape[1]))


def signals(inputs: Inputs, features: Features) -> dict[str, NDArray[np.float64]]:
    """Scalars per row, each [n], that the drift monitor watches: every column, and how many values
    are missing.

    A missing number counts as the column's lowest: the test that compares distributions sees it
    best at an end. A category counts as its place in the list, a missing or unknown one as the
    place after the last. Dates are not watched: time goes on.
    """
    found: dict[str, NDArray[np.float64]] = {}
    if features.numeric:
        numbers = raw_numbers(inputs, features)
        for name, (low, _) in features.numeric.items():
            found[name] = np.where(np.isnan(numbers[name]), low, numbers[name])
        found["missing values"] = inputs["missing"].sum(axis=1, dtype=np.float64)
    for name in features.others:
        bucket = features.blocks[name].stop - 1
        found[f"{name}: other values"] = inputs["categorical"][:, bucket].astype(np.float64)
    for name, block in features.blocks.items():
        found[name] = _indices(inputs["categorical"][:, block]).astype(np.float64)
    return found

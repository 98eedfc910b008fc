"""What reports show of a row: `data.features.personal` marks columns, and whatever shows a row's
values asks here.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from .settings import Mark

HIDDEN = "(personal)"
SHORT = 10  # letters of a hash: enough to tell the rows of one table apart


def marks(features: Mapping[str, Any]) -> "dict[str, Mark]":
    """The columns of `data.features`, or of a bundle's card, that are not shown as they are."""
    personal = features.get("personal", {})
    return {name: mark for name, mark in personal.items() if mark != "keep"}


def shown(value: Any, name: str, marks: "Mapping[str, Mark]") -> Any:
    """A column's value as a report may show it; missing stays missing, equal hashes are of equal
    values. Values that can be guessed can be tried: those are to be dropped.
    """
    mark = marks.get(name, "keep")
    if mark == "keep" or value is None:
        return value
    if mark == "drop":
        return HIDDEN
    return "#" + hashlib.sha256(f"{name}={value}".encode()).hexdigest()[:SHORT]


def rows(table: "pd.DataFrame", marks: "Mapping[str, Mark]") -> "pd.DataFrame":
    """The same of all columns."""
    names = table.columns.intersection([*marks])
    columns = {
        name: table[name].map(partial(shown, name=name, marks=marks), na_action="ignore")
        for name in names
    }
    return table.assign(**columns)

"""Methods of one kind of answers, in a file that a task without that kind does not have."""

from importlib import import_module
from typing import Any


def of_values() -> Any:
    """What the methods ask of values, where classes have probabilities."""
    return import_module(f"{__package__}.of_values")

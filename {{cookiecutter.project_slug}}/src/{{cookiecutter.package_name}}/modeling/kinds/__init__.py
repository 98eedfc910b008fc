"""What follows from the kind of a task: one module for each, with the functions and constants of
`classes` (a test holds them equal). A project has the kinds that its data can ask for.

Raw outputs are logits [n, k] for classes (k = 2 for binary), and the value [n, 1], or value and log
standard deviation [n, 2], in the label's own unit for values. The server runs these modules too:
they import torch only where they train.
"""

import importlib
from pathlib import Path
from types import ModuleType

from ... import settings

Kind = ModuleType
MODULES: dict[settings.Kind, str] = {
    "multiclass": "classes",
    "binary": "classes",
    "regression": "values",
}


def installed() -> list[settings.Kind]:
    """The kinds that this project has."""
    modules = {path.stem for path in Path(__file__).parent.glob("*.py")}
    return [kind for kind, module in MODULES.items() if module in modules]


def of(kind: settings.Kind) -> Kind:
    """The module of a kind. Raises ValueError where this project was generated without it."""
    if kind not in installed():
        raise ValueError(f"this project has no kind {kind}, but {', '.join(installed())}")
    return importlib.import_module(f".{MODULES[kind]}", __package__)

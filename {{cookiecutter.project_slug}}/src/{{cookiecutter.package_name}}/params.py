"""params.yaml: the composed configuration that DVC sees and that every verb reads, with overrides
on top.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from .settings import Settings, parse

PARAMS = Path("params.yaml")


def load(overrides: list[str] | None = None) -> Settings:
    """Settings from `params.yaml` in the working directory, with `dotted.key=value` overrides on
    top.
    """
    if not PARAMS.is_file():
        raise ValueError(f"no {PARAMS} here: run this in the project's root folder")
    try:
        raw = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{PARAMS} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(
            f"{PARAMS} is empty: `git checkout {PARAMS}` brings the last committed one back"
        )
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
        # YAML takes 1e-9, without a point, for text.
        node[last] = (
            float(value) if re.fullmatch(r"[-+]?\d+e[-+]?\d+", value) else yaml.safe_load(value)
        )
    except yaml.YAMLError:
        raise ValueError(f"the value of {override!r} is not valid YAML") from None

"""params.yaml: the composed configuration that DVC sees and that every verb reads, with overrides
on top.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .settings import Settings, parse

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

PARAMS = Path("params.yaml")


def read() -> dict[str, Any]:
    """The content of `params.yaml` in the working directory."""
    if not PARAMS.is_file():
        raise ValueError(f"no {PARAMS} here: run this in the project's root folder")
    try:
        content = yaml.safe_load(PARAMS.read_bytes())
    except yaml.YAMLError as error:
        content = f"{error}"
    if not isinstance(content, dict):
        remedy = f"`git checkout {PARAMS}` brings the last one back"
        raise ValueError(f"{PARAMS} is empty or damaged: {remedy}; {content or ''}")
    return content


def load(overrides: list[str] | None = None) -> Settings:
    """Settings from `params.yaml`, with `dotted.key=value` overrides in Hydra's grammar on top."""
    content = read()
    for key, value in _parsed(overrides or []):
        *parents, last = key.split(".")
        section: Any = content
        for name in parents:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise ValueError(
                f"unknown key {key!r}: name one of {PARAMS}, such as `serving.port=9000`"
            )
        if isinstance(section[last], dict) and isinstance(value, str):
            raise ValueError(f"{key!r} is a group: `pipeline {key}=...` and `train` choose groups")
        section[last] = value
    return parse(content)


def check_trainable(settings: Settings) -> None:
    """Raises ValueError where an experiment cannot train with these settings, on the splits there
    are.
    """
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError("experiments train on one device: choose trainer=cpu or trainer=gpu")
    data = load().data
    if (settings.data.name, settings.data.labels) != (data.name, data.labels):
        raise ValueError("the splits are of other data: run `make pipeline` with these first")


def compose(overrides: list[str], configs: Path = Path("configs")) -> str:
    """The composed, resolved configuration as YAML, byte for byte what `dvc exp run -S` writes.
    Raises ValueError where configs/ or the overrides are wrong.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(configs.resolve()), version_base=None):
            config = hydra_compose("config", overrides=overrides)
        OmegaConf.to_container(config, resolve=True)
        return OmegaConf.to_yaml(config, resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        problem = " ".join(str(error).partition("Config search path")[0].split())
        raise ValueError(f"configs/ with {overrides} do not compose: {problem}") from None


def _parsed(overrides: list[str]) -> list[tuple[str, Any]]:
    """Key and value of each override."""
    if not overrides:
        return []
    try:
        words = _words(overrides)
    except ModuleNotFoundError:  # the serving image has no Hydra: there a value is YAML
        pairs = [override.partition("=") for override in overrides]
        return [(key, yaml.safe_load(value)) for key, _, value in pairs]
    return [(word.key_or_group, word.value()) for word in words]


def _words(overrides: list[str]) -> "list[Override]":
    """Overrides as Hydra reads them. Raises ValueError in a line for what it cannot read."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides(overrides)
    except OverrideParseException as error:
        problem = str(error).partition("\n")[0]
        raise ValueError(f"{error.override!r} is no key=value: {problem}") from None


def variants(overrides: list[str]) -> list[list[str]]:
    """The overrides of a multirun with the first of their values, and with each of the others."""
    words, first = _words(overrides), list[str]()
    changes = []
    for number, word in enumerate(words):
        texts = [overrides[number]]
        if word.is_sweep_override():  # an interval is drawn from: nothing to compose
            values = word.sweep_string_iterator() if word.is_discrete_sweep() else ()
            texts = [f"{word.get_key_element()}={value}" for value in values] or [""]
        first.append(texts[0])
        changes += [(number, text) for text in texts[1:]]
    others = [[*first[:number], text, *first[number + 1 :]] for number, text in changes]
    return [list(filter(None, words)) for words in [first, *others]]

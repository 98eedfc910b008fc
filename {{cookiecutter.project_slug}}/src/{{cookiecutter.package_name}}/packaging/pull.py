"""Fetches champion and challenger from the registry into live/, then points live/current.json at
them in one step.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from .. import logs
from ..provenance import write_json
from ..settings import Settings
from . import registry
from .bundle import CURRENT as CURRENT  # for checklist and gc
from .bundle import Bundle, load_live

ALIASES = (registry.CHAMPION, registry.CHALLENGER)


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond the settings."""


def holds(folder: Path, identity: str) -> bool:
    """Whether a folder holds this bundle, whole and unchanged."""
    try:
        return Bundle.load(folder).identity == identity
    except ValueError:
        return False


def is_live(settings: Settings) -> bool:
    """Whether live/ holds the bundle in artifacts/, and no registry of a team may say otherwise:
    told without importing MLflow.
    """
    if not settings.tracking.uri.startswith("sqlite"):
        return False
    try:
        return holds(settings.paths.bundle, load_live(settings.paths.live)[1].identity)
    except ValueError:
        return False


def fetch(settings: Settings, alias: str) -> dict[str, Any] | None:
    """Folder, version and identity of the alias's bundle, downloaded where it is not there yet."""
    version = registry.by_alias(settings, alias)
    if version is None:
        return None
    name, identity = registry.label(version), version.tags["identity"]
    target, draft = settings.paths.live / name, settings.paths.live / f".{name}.tmp"
    if not holds(target, identity):
        for folder in (draft, target):
            shutil.rmtree(folder, ignore_errors=True)
        registry.download(settings, version, draft).folder.replace(target)
        shutil.rmtree(draft, ignore_errors=True)
    return {"version": name, "path": name, "identity": identity, "run_id": version.run_id}


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes live/<version>/ and live/current.json; a running server reloads when the latter
    changes.
    """
    with logs.stage("pull") as log:
        content = {alias: fetch(settings, alias) for alias in ALIASES}
        if content["champion"] is None:
            raise ValueError("no champion in the registry: run the verb `promote` first")
        write_json(settings.paths.live / CURRENT, content)
        log.info("live champion is %s", content["champion"]["version"])
    return 0

"""Fetches champion and challenger from the registry into live/, then points live/current.json at
them in one step.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from .. import logs
from ..provenance import write_json
from ..settings import Settings
from . import promote, registry
from .bundle import Bundle

CURRENT = "current.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond the settings."""


def up_to_date(settings: Settings) -> bool:
    """Whether live/ already holds the bundle that this clone promoted last, told without importing
    the tracker.
    """
    path = settings.paths.live / CURRENT
    if not path.is_file() or not (settings.paths.bundle / "manifest.json").is_file():
        return False
    bundle = Bundle.load(settings.paths.bundle)
    try:
        champion = json.loads(path.read_text(encoding="utf-8"))["champion"]
    except (ValueError, KeyError, TypeError):
        return False
    if champion["identity"] != bundle.identity or not promote.unchanged(settings, bundle):
        return False
    return holds(settings.paths.live / champion["path"], bundle.identity)


def holds(folder: Path, identity: str) -> bool:
    """Whether a folder holds this bundle, whole and unchanged."""
    try:
        return Bundle.load(folder).identity == identity
    except ValueError:
        return False


def fetch(settings: Settings, alias: str) -> dict[str, Any] | None:
    """Folder, version and identity of the alias's bundle, downloaded where it is not there already."""
    version = registry.by_alias(settings, alias)
    if version is None:
        return None
    name, identity = registry.label(version), version.tags["identity"]
    target, draft = settings.paths.live / name, settings.paths.live / f".{name}.tmp"
    if not holds(target, identity):
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        registry.download(settings, version, draft).folder.replace(target)
        shutil.rmtree(draft, ignore_errors=True)
    return {"version": name, "path": name, "identity": identity, "run_id": version.run_id}


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes live/<version>/ and live/current.json; a running server reloads when the latter
    changes.
    """
    with logs.stage("pull") as log:
        if up_to_date(settings):
            log.info("live/ is up to date")
            return 0
        champion = fetch(settings, registry.CHAMPION)
        if champion is None:
            (settings.paths.state / promote.MARKER).unlink(
                missing_ok=True
            )  # of a store that is gone
            raise ValueError("no champion in the registry: run `make pipeline` first")
        settings.paths.live.mkdir(parents=True, exist_ok=True)
        write_json(
            settings.paths.live / CURRENT,
            {"champion": champion, "challenger": fetch(settings, registry.CHALLENGER)},
        )
        log.info("live champion is %s", champion["version"])
    return 0

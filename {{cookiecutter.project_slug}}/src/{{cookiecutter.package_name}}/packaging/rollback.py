"""Makes the champion before the present one champion again, and fetches it into live/."""

import argparse

from .. import logs, tracking
from ..settings import Settings
from . import pull, registry


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="no reason given", help="goes into the audit log")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Moves the alias, writes the audit record, pulls."""
    with logs.stage("rollback") as log:
        champion = registry.by_alias(settings, registry.CHAMPION)
        before = registry.champion_before(settings, champion) if champion else None
        if champion is None or before is None:
            raise ValueError("there is no earlier champion to go back to")
        name = settings.tracking.registered_model
        version = tracking.client(settings).get_model_version(name, before.partition("-")[0])
        best = registry.by_alias(settings, registry.BEST)
        # What was taken out of service is no measure for others.
        if best and best.version == champion.version:
            registry.point(settings, registry.BEST, version)
        registry.point(settings, registry.CHAMPION, version)
        registry.audit(settings, "rollback", version, champion, [args.reason])
        labels = registry.label(version), registry.label(champion)
        log.info("champion is %s again, in place of %s", *labels)
    return pull.run(settings, args)

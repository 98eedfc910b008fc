"""Decides whether the bundle becomes champion: exit 0 promoted or nothing new, 3 refused, 4 cannot tell.

It must pass every method of the gate and not be worse than the champion by more than a margin. Where that cannot be
told, a champion stays and the bundle becomes challenger; where there is no champion yet, it is let in.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import logs
from ..experiments import tracking
from ..provenance import read_json, write_json
from ..settings import Settings
from . import registry
from .bundle import Bundle

PROMOTED, REFUSED, CANNOT_TELL = 0, 3, 4
MARKER = "promoted.json"


@dataclass(frozen=True)
class Decision:
    """The exit code, the action for the audit log and the reasons, in words."""

    code: int
    action: Literal["promote", "refuse", "cannot tell"]
    why: list[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--override", metavar="REASON", help="promote whatever the gate says; the reason goes into the audit log"
    )


def against_champion(settings: Settings, bundle: Bundle, champion: Bundle) -> tuple[str, str]:
    """Verdict and reason: both models on the candidate's test rows, judged by the interval of the difference."""
    from ..data.datamodule import load
    from ..data.features import Features, encode
    from ..evaluation.comparison import mcnemar

    if bundle.card.labels != champion.card.labels:
        return "cannot tell", "the champion knows other labels"
    test, limits = load(settings, "test"), settings.evaluation.comparison
    correct = []
    for model in (bundle, champion):
        inputs = encode(test.rows, Features.model_validate(model.card.features))
        correct.append(model.infer(inputs)["logits"].argmax(axis=1) == test.label)
    found = mcnemar(correct[0], correct[1], limits.alpha)
    interval = f"{found.low:+.4f} to {found.high:+.4f}, margin {limits.margin:g}"
    numbers = f"accuracy differs from the champion's by {found.difference:+.4f} ({interval})"
    if found.low > -limits.margin:
        return "pass", f"not worse than the champion: {numbers}"
    return (
        ("fail", f"worse than the champion: {numbers}")
        if found.high < 0
        else ("cannot tell", f"may be worse than the champion: {numbers}")
    )


def decide(
    evaluation: dict[str, Any],
    packaging: dict[str, Any],
    champion: tuple[str, str] | None,
    override: str | None,
    rolled_back: str | None = None,
) -> Decision:
    """The gate: every method, the bundle's verdicts, the comparison with a champion, and no rollback of it."""
    outcomes = [(v["outcome"], f"{v['method']} {v['title']}: {v['why']}") for v in evaluation["methods"].values()]
    for v in packaging["verdicts"]:
        outcomes.append((v["outcome"], f"P2 {v['name']}: {v['number']:.4g}, limit {v['threshold']:g}"))
    outcomes += [champion] if champion else []
    outcomes += [("fail", rolled_back)] if rolled_back else []
    failed = [why for outcome, why in outcomes if outcome == "fail"]
    unsure = [why for outcome, why in outcomes if outcome == "cannot tell"]
    if override and (failed or unsure):
        return Decision(PROMOTED, "promote", [f"override: {override}", *failed, *unsure])
    if failed:
        return Decision(REFUSED, "refuse", failed)
    if unsure and champion:
        return Decision(CANNOT_TELL, "cannot tell", unsure)
    passed = [champion[1]] if champion else ["first champion"]
    return Decision(PROMOTED, "promote", ["all gates passed", *passed] if not unsure else ["no champion yet", *unsure])


def unchanged(settings: Settings, bundle: Bundle) -> bool:
    """Whether this clone already promoted this very bundle to this very store, told without importing the tracker."""
    marker = settings.paths.state / MARKER
    store = Path(settings.tracking.uri.removeprefix("sqlite:///"))
    if not settings.tracking.uri.startswith("sqlite:///") or not marker.is_file() or not store.is_file():
        return False
    return bool(read_json(marker) == {"identity": bundle.identity, "uri": settings.tracking.uri})


def check_fresh(evaluation: dict[str, Any], packaging: dict[str, Any], bundle: Bundle) -> None:
    """Raises ValueError where the reports speak of another bundle."""
    if packaging["provenance"]["bundle"] != bundle.identity or evaluation["candidate"] != bundle.card.candidate:
        raise ValueError("the reports do not belong to this bundle: run `dvc repro` first")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Registers the bundle, moves the aliases and writes the audit record."""
    with logs.stage("promote") as log:
        bundle = Bundle.load(settings.paths.bundle)
        if unchanged(settings, bundle):
            log.info("nothing new: bundle %s is the champion", bundle.identity[:12])
            return PROMOTED
        evaluation, packaging = (
            read_json(settings.paths.reports / f"{name}.json") for name in ("evaluation", "package")
        )
        check_fresh(evaluation, packaging, bundle)
        champion = registry.by_alias(settings, registry.CHAMPION)
        if champion and champion.tags["identity"] == bundle.identity:
            log.info(
                "nothing new: bundle %s is the champion, version %s", bundle.identity[:12], registry.label(champion)
            )
            _mark(settings, bundle)
            return PROMOTED
        compared = _compare(settings, bundle, champion)
        taken_back = registry.rolled_back(settings, bundle.identity)
        decision = decide(evaluation, packaging, compared, args.override, taken_back)
        _carry_out(settings, bundle, champion, decision, log)
    return decision.code


def _compare(settings: Settings, bundle: Bundle, champion: Any) -> tuple[str, str] | None:
    if champion is None:
        return None
    folder = settings.paths.state / "champion"
    shutil.rmtree(folder, ignore_errors=True)
    return against_champion(settings, bundle, registry.download(settings, champion, folder))


def _carry_out(settings: Settings, bundle: Bundle, champion: Any, decision: Decision, log: Any) -> None:
    version = registry.find(settings, bundle.identity)
    version = version or registry.register(settings, bundle, tracking.current(settings, "register"))
    client, name = tracking.client(settings), settings.tracking.registered_model
    if decision.code == PROMOTED:
        client.set_registered_model_alias(name, registry.CHAMPION, version.version)
        if registry.by_alias(settings, registry.CHALLENGER):
            client.delete_registered_model_alias(name, registry.CHALLENGER)
    elif decision.code == CANNOT_TELL:
        client.set_registered_model_alias(name, registry.CHALLENGER, version.version)
    registry.audit(settings, decision.action, version, champion, decision.why)
    if decision.code == PROMOTED:
        _mark(settings, bundle)
    words = {PROMOTED: "promoted to champion", REFUSED: "refused", CANNOT_TELL: "cannot tell, the champion stays"}
    log.info("version %s %s: %s", registry.label(version), words[decision.code], "; ".join(decision.why))
    if settings.tracking.uri.startswith("sqlite"):
        log.info(
            "this registry is local, so it decides for this clone alone; a team promotes from CI against one server"
        )


def _mark(settings: Settings, bundle: Bundle) -> None:
    write_json(settings.paths.state / MARKER, {"identity": bundle.identity, "uri": settings.tracking.uri})

"""Decides whether the bundle becomes champion: exit 0 promoted or nothing new, 3 refused, 4 cannot
tell.

It must pass every method of the gate, and be neither significantly worse than the champion nor
worse by more than the margin; the same holds beside the best model ever promoted, or a series of
champions could lose a little each time. Where something cannot be told, a champion stays and the
bundle becomes challenger; where there is no champion yet, it is let in. The gate's table is printed
and lands in reports/promotion.json.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import logs, tracking
from ..provenance import read_json, stamp, write_json
from ..settings import Settings
from . import registry
from .bundle import Bundle

PROMOTED, REFUSED, CANNOT_TELL = 0, 3, 4
MARKER, REPORT = "promoted.json", "promotion.json"
Row = dict[str, Any]  # of the gate's table: method, title, outcome, number, threshold, why


@dataclass(frozen=True)
class Decision:
    """The exit code, the action for the audit log and the reasons, in words."""

    code: int
    action: Literal["promote", "refuse", "cannot tell"]
    why: list[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--override",
        metavar="REASON",
        help="promote whatever the gate says; the reason goes into the audit log",
    )


def gate(
    evaluation: Row, packaging: Row, compared: list[Row], rolled_back: str | None
) -> list[Row]:
    """The table: every method, the bundle's verdicts, the comparisons with promoted models, and no
    rollback of it.
    """
    packaged = [
        {
            "method": "P2",
            "title": v["name"],
            "why": f"{v['number']:.4g}, limit {v['threshold']:g}",
            **v,
        }
        for v in packaging["verdicts"]
    ]
    back = {
        "method": "P3",
        "title": "Rollback",
        "outcome": "fail",
        "number": None,
        "threshold": None,
    }
    rows = [
        *evaluation["methods"].values(),
        *packaged,
        *compared,
        *([{**back, "why": rolled_back}] if rolled_back else []),
    ]
    return [
        {k: row[k] for k in ("method", "title", "outcome", "number", "threshold", "why")}
        for row in rows
    ]


def decide(rows: list[Row], champion: bool, override: str | None) -> Decision:
    """What the rows of the gate come to; rows that are not applicable say nothing."""
    failed, unsure = (
        [f"{r['method']} {r['title']}: {r['why']}" for r in rows if r["outcome"] == outcome]
        for outcome in ("fail", "cannot tell")
    )
    if override and (failed or unsure):
        return Decision(PROMOTED, "promote", [f"override: {override}", *failed, *unsure])
    if failed:
        return Decision(REFUSED, "refuse", failed)
    if unsure and champion:
        return Decision(CANNOT_TELL, "cannot tell", unsure)
    if unsure:
        return Decision(
            PROMOTED, "promote", ["let in, as there is no champion yet, though", *unsure]
        )
    return Decision(
        PROMOTED,
        "promote",
        ["all gates passed" if champion else "all gates passed, first champion"],
    )


def unchanged(settings: Settings, bundle: Bundle) -> bool:
    """Whether this clone already promoted this very bundle to this very store, told without
    importing the tracker.
    """
    marker = settings.paths.state / MARKER
    store = Path(settings.tracking.uri.removeprefix("sqlite:///"))
    if (
        not settings.tracking.uri.startswith("sqlite:///")
        or not marker.is_file()
        or not store.is_file()
    ):
        return False
    return bool(read_json(marker) == {"identity": bundle.identity, "uri": settings.tracking.uri})


def check_fresh(evaluation: Row, packaging: Row, bundle: Bundle) -> None:
    """Raises ValueError where the reports speak of another bundle."""
    if (
        packaging["provenance"]["bundle"] != bundle.identity
        or evaluation["candidate"] != bundle.card.candidate
    ):
        raise ValueError("the reports do not belong to this bundle: run `dvc repro` first")


def check_reason(override: str | None) -> None:
    """Raises ValueError where an override has no reason that fits a line of the audit log."""
    if override is not None and (not override.strip() or len(override.splitlines()) > 1):
        raise ValueError(
            "an override needs a reason in words, on one line, for those who read the audit log"
        )


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Registers the bundle, moves the aliases and writes the audit record."""
    check_reason(args.override)
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
                "nothing new: bundle %s is the champion, version %s",
                bundle.identity[:12],
                registry.label(champion),
            )
            _mark(settings, bundle)
            return PROMOTED
        return _act(settings, bundle, evaluation, packaging, champion, args.override, log)


def _act(
    settings: Settings,
    bundle: Bundle,
    evaluation: Row,
    packaging: Row,
    champion: Any,
    override: str | None,
    log: Any,
) -> int:
    from . import (
        incumbent,  # with PyTorch, which a bundle that is the champion already can do without
    )

    compared = [
        incumbent.against(settings, bundle, *known)
        for known in incumbent.references(settings).items()
    ]
    taken_back = registry.rolled_back(settings, bundle.identity)
    rows = gate(evaluation, packaging, [v.record() for v in compared], taken_back)
    decision = decide(rows, champion is not None, override)
    show(rows, f"Gate of bundle {bundle.identity[:12]}, the {bundle.card.candidate}")
    version = registry.find(settings, bundle.identity)
    if version is None:
        with tracking.current(settings, "register") as run:
            version = registry.register(settings, bundle, run)
    best = incumbent.best_after(settings, version, compared)
    _report(settings, bundle, version, champion, decision, rows)
    _carry_out(settings, version, champion, best, decision)
    if decision.code == PROMOTED:
        _mark(settings, bundle)
    words = {
        PROMOTED: "promoted to champion",
        REFUSED: "refused",
        CANNOT_TELL: "cannot tell, the champion stays",
    }
    log.info(
        "version %s %s: %s", registry.label(version), words[decision.code], "; ".join(decision.why)
    )
    if decision.code == CANNOT_TELL:
        log.info(
            'where the question is another one now: the verb `promote` with --override "why" promotes it'
        )
    if settings.tracking.uri.startswith("sqlite"):
        log.info(
            "this registry is local: it decides for this clone alone; a team promotes from CI against one server"
        )
    return decision.code


def show(rows: list[Row], title: str) -> None:
    """The table on the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("method", "number", "threshold", "verdict", "why"):
        table.add_column(column)
    colours = {"pass": "green", "fail": "red", "cannot tell": "yellow", "not applicable": "dim"}
    for row in rows:
        numbers = ("" if row[k] is None else f"{row[k]:.4g}" for k in ("number", "threshold"))
        verdict = f"[{colours[row['outcome']]}]{row['outcome']}[/]"
        table.add_row(f"{row['method']} {row['title']}", *numbers, verdict, row["why"])
    Console(stderr=True).print(table)


def _report(
    settings: Settings,
    bundle: Bundle,
    version: Any,
    champion: Any,
    decision: Decision,
    rows: list[Row],
) -> None:
    content = {
        "provenance": stamp(settings, "promote", bundle.identity),
        "version": registry.label(version),
        "candidate": bundle.card.candidate,
        "champion": registry.label(champion) if champion else None,
        "decision": decision.action,
        "exit": decision.code,
        "why": decision.why,
        "gate": rows,
    }
    path = settings.paths.reports / REPORT
    write_json(path, content)
    tracking.client(settings).log_artifact(version.run_id, str(path), "promotion")


def _carry_out(
    settings: Settings, version: Any, champion: Any, best: Any, decision: Decision
) -> None:
    """Moves the aliases and writes the audit record."""
    client, name = tracking.client(settings), settings.tracking.registered_model
    if decision.code == PROMOTED:
        client.set_registered_model_alias(name, registry.BEST, best.version)
        client.set_registered_model_alias(name, registry.CHAMPION, version.version)
        if registry.by_alias(settings, registry.CHALLENGER):
            client.delete_registered_model_alias(name, registry.CHALLENGER)
    elif decision.code == CANNOT_TELL:
        client.set_registered_model_alias(name, registry.CHALLENGER, version.version)
    registry.audit(settings, decision.action, version, champion, decision.why)


def _mark(settings: Settings, bundle: Bundle) -> None:
    write_json(
        settings.paths.state / MARKER, {"identity": bundle.identity, "uri": settings.tracking.uri}
    )

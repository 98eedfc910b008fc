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

from .. import logs, pages, tracking
from ..evaluation.verdict import Verdict
from ..provenance import read_json, stamp, write_json
from ..settings import Settings
from . import registry
from .bundle import Bundle

Action = Literal["promote", "refuse", "cannot tell"]
EXIT: dict[Action, int] = {"promote": 0, "refuse": 3, "cannot tell": 4}
WORDS: dict[Action, str] = {
    "promote": "promoted to champion",
    "refuse": "refused",
    "cannot tell": "cannot tell, the champion stays; `promote --override REASON` overrules that",
}
REPORT = "promotion.json"
COLUMNS = ("method", "title", "outcome", "number", "threshold", "why")
Row = dict[str, Any]  # of the gate's table, with COLUMNS


@dataclass(frozen=True)
class Decision:
    """The action for the audit log and the reasons, in words."""

    action: Action
    why: list[str]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--override",
        metavar="REASON",
        help="promote whatever the gate says; the reason goes into the audit log",
    )


def gate(
    evaluation: Row, packaging: Row, compared: list[Verdict], rolled_back: str | None
) -> list[Row]:
    """The table: every method, the bundle's verdicts, the comparisons with promoted models, and no
    rollback of it.
    """
    if rolled_back:
        compared = [*compared, Verdict("P3", "Rollback", "fail", None, None, rolled_back)]
    rows = [*evaluation["methods"].values(), *packaging["verdicts"], *map(vars, compared)]
    return [{column: row[column] for column in COLUMNS} for row in rows]


def decide(rows: list[Row], champion: bool, override: str | None) -> Decision:
    """What the rows of the gate come to; rows that are not applicable say nothing."""
    reasons: dict[str, list[str]] = {
        "pass": [],
        "not applicable": [],
        "fail": [],
        "cannot tell": [],
    }
    for row in rows:
        reasons[row["outcome"]].append(f"{row['method']} {row['title']}: {row['why']}")
    failed, unsure = reasons["fail"], reasons["cannot tell"]
    if override and (failed or unsure):
        return Decision("promote", [f"override: {override}", *failed, *unsure])
    if failed:
        return Decision("refuse", failed)
    if unsure and champion:
        return Decision("cannot tell", unsure)
    if unsure:
        return Decision("promote", ["let in, as there is no champion yet, though", *unsure])
    return Decision("promote", ["all gates passed" + ("" if champion else ", first champion")])


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Registers the bundle, moves the aliases and writes the audit record."""
    if args.override is not None and len(args.override.strip().splitlines()) != 1:
        raise ValueError("an override needs a reason on one line, for those who read the audit log")
    with logs.stage("promote") as log:
        bundle = Bundle.load(settings.paths.bundle)
        champion = registry.by_alias(settings, registry.CHAMPION)
        if champion and champion.tags["identity"] == bundle.identity:
            log.info("nothing new: this bundle is the champion %s", registry.label(champion))
            return 0
        return _judge(settings, bundle, args.override, log)


def _judge(settings: Settings, bundle: Bundle, override: str | None, log: Any) -> int:
    from .champion import against, best_after, references  # with PyTorch

    reports = settings.paths.reports
    evaluation, packaging = (read_json(reports / f"{n}.json") for n in ("evaluation", "package"))
    if packaging["provenance"]["bundle"] != bundle.identity:
        raise ValueError("the reports do not belong to this bundle: run `dvc repro` first")
    present = references(settings)
    verdicts = [against(settings, bundle, *reference) for reference in present.items()]
    rows = gate(evaluation, packaging, verdicts, registry.rolled_back(settings, bundle.identity))
    decision = decide(rows, bool(present), override)
    table = pages.table(rows)
    title = f"Gate of bundle {bundle.identity[:12]}, the {bundle.card.candidate}"
    pages.print_table(title, table.columns, table.rows, stderr=True)
    version = registry.find(settings, bundle.identity) or registry.register(settings, bundle)
    best, champion = best_after(settings, version, verdicts), present.get(registry.CHAMPION)
    content = {
        "provenance": stamp(settings, "promote", bundle.identity),
        "version": registry.label(version),
        "candidate": bundle.card.candidate,
        "champion": registry.label(champion) if champion else None,
        "decision": decision.action,
        "exit": EXIT[decision.action],
        "why": decision.why,
        "gate": rows,
    }
    write_json(reports / REPORT, content)
    client = tracking.client(settings)
    tracking.upload(client, str(version.run_id), reports / REPORT, Path("promotion"))
    if decision.action == "promote":
        registry.point(settings, registry.BEST, best)
        registry.point(settings, registry.CHAMPION, version)
        registry.point(settings, registry.CHALLENGER, None)
    elif decision.action == "cannot tell":
        registry.point(settings, registry.CHALLENGER, version)
    registry.audit(settings, decision.action, version, champion, decision.why)
    words = WORDS[decision.action], "; ".join(decision.why)
    log.info("version %s %s: %s", registry.label(version), *words)
    return EXIT[decision.action]

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
from typing import Any, Literal

from .. import logs, pages, tracking
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
    evaluation: Row, packaging: Row, compared: list[Row], rolled_back: str | None
) -> list[Row]:
    """The table: every method, the bundle's verdicts, the comparisons with promoted models, and no
    rollback of it.
    """
    rows = list(evaluation["methods"].values())
    for verdict in packaging["verdicts"]:
        why = f"{verdict['number']:.4g}, limit {verdict['threshold']:g}"
        rows.append({**verdict, "method": "P2", "title": verdict["name"], "why": why})
    rows += compared
    if rolled_back:
        words = {"method": "P3", "title": "Rollback", "outcome": "fail", "why": rolled_back}
        rows.append({**words, "number": None, "threshold": None})
    return [{column: row[column] for column in COLUMNS} for row in rows]


def decide(rows: list[Row], champion: bool, override: str | None) -> Decision:
    """What the rows of the gate come to; rows that are not applicable say nothing."""
    reasons: dict[str, list[str]] = {"fail": [], "cannot tell": []}
    for row in rows:
        if row["outcome"] in reasons:
            reasons[row["outcome"]].append(f"{row['method']} {row['title']}: {row['why']}")
    failed, unsure = reasons.values()
    if override and (failed or unsure):
        return Decision("promote", [f"override: {override}", *failed, *unsure])
    if failed:
        return Decision("refuse", failed)
    if unsure and champion:
        return Decision("cannot tell", unsure)
    if unsure:
        return Decision("promote", ["let in, as there is no champion yet, though", *unsure])
    return Decision("promote", ["all gates passed" + ("" if champion else ", first champion")])


def check_fresh(evaluation: Row, packaging: Row, bundle: Bundle) -> None:
    """Raises ValueError where the reports speak of another bundle."""
    identity, candidate = packaging["provenance"]["bundle"], evaluation["candidate"]
    if (identity, candidate) != (bundle.identity, bundle.card.candidate):
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
        bundle, reports = Bundle.load(settings.paths.bundle), settings.paths.reports
        evaluation, packaging = (
            read_json(reports / f"{name}.json") for name in ("evaluation", "package")
        )
        check_fresh(evaluation, packaging, bundle)
        champion = registry.by_alias(settings, registry.CHAMPION)
        if champion and champion.tags["identity"] == bundle.identity:
            label = registry.label(champion)
            log.info("nothing new: bundle %s is the champion %s", bundle.identity[:12], label)
            return 0
        return _judge(settings, bundle, evaluation, packaging, args.override, log)


def _judge(
    settings: Settings,
    bundle: Bundle,
    evaluation: Row,
    packaging: Row,
    override: str | None,
    log: Any,
) -> int:
    from .champion import against, best_after, references  # with PyTorch

    present = references(settings)
    verdicts = [against(settings, bundle, *reference) for reference in present.items()]
    rolled_back = registry.rolled_back(settings, bundle.identity)
    rows = gate(evaluation, packaging, [verdict.record() for verdict in verdicts], rolled_back)
    decision = decide(rows, bool(present), override)
    show(rows, f"Gate of bundle {bundle.identity[:12]}, the {bundle.card.candidate}")
    version = registry.find(settings, bundle.identity)
    if version is None:
        with tracking.current(settings, "register") as run:
            version = registry.register(settings, bundle, run)
    best, champion = best_after(settings, version, verdicts), present.get(registry.CHAMPION)
    _report(settings, bundle, version, champion, decision, rows)
    if decision.action == "promote":
        registry.point(settings, registry.BEST, best)
        registry.point(settings, registry.CHAMPION, version)
        registry.point(settings, registry.CHALLENGER, None)
    elif decision.action == "cannot tell":
        registry.point(settings, registry.CHALLENGER, version)
    registry.audit(settings, decision.action, version, champion, decision.why)
    why = "; ".join(decision.why)
    log.info("version %s %s: %s", registry.label(version), WORDS[decision.action], why)
    return EXIT[decision.action]


def show(rows: list[Row], title: str) -> None:
    """The table on the terminal."""
    cells = []
    for row in rows:
        numbers = ("" if row[k] is None else f"{row[k]:.4g}" for k in ("number", "threshold"))
        cells.append((f"{row['method']} {row['title']}", *numbers, row["outcome"], row["why"]))
    columns = ("method", "number", "threshold", "verdict", "why")
    pages.print_table(title, columns, cells, stderr=True)


def _report(
    settings: Settings,
    bundle: Bundle,
    version: Any,
    champion: Any,
    decision: Decision,
    rows: list[Row],
) -> None:
    path = settings.paths.reports / REPORT
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
    write_json(path, content)
    tracking.client(settings).log_artifact(version.run_id, str(path), "promotion")

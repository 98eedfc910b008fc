"""The one scheduled entry point: monitors and, where that asks for it, retrains through the same
gates.

    15 4 * * * cd <project> && .venv/bin/python -m <package> routine  # a line of a crontab

Exit code 0 nothing to do or promoted, 3 refused by the gates, 4 cannot tell (a person must look), 1
failed. Every run is one line in logs/routine.jsonl. Your checkout is not touched: a retraining
makes a branch to review and merge.
"""

import argparse
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from .. import logs
from ..settings import Settings
from .monitor import monitor
from .retrain import Outcome, retrain

FAILED, UNSURE = 1, 4


def arguments(parser: argparse.ArgumentParser) -> None:
    force = "retrain without an alarm; the gates decide as always"
    parser.add_argument("--force", action="store_true", help=force)
    scheduled = "when this run was meant to start (ISO 8601), for the log"
    parser.add_argument("--scheduled", metavar="TIME", help=scheduled)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """One run at a time; whatever happens, logs/routine.jsonl gets its line."""
    from filelock import FileLock, Timeout

    start, state = datetime.now(UTC).isoformat(timespec="seconds"), settings.paths.state
    fields = {"scheduled": args.scheduled or start, "start": start}
    state.mkdir(parents=True, exist_ok=True)
    # `finally` is to be done on SIGTERM too.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    outcome = Outcome(FAILED, "failed", error="interrupted")
    try:
        with FileLock(state / "routine.lock", timeout=0):
            outcome = routine(settings, args.force)
    except Timeout:
        error = "another routine is running: wait for it to end"
        outcome = replace(outcome, error=error)
    except Exception as error:  # the scheduler's log must say what went wrong, whatever it was
        outcome = replace(outcome, error=" ".join(str(error).split()) or repr(error))
    finally:
        signal.signal(signal.SIGTERM, before)
        _record(outcome, fields)
    return outcome.code


def routine(settings: Settings, force: bool) -> Outcome:
    """Monitors, decides, and retrains where that is the decision."""
    report = monitor(settings)
    if force:
        return retrain(settings, ["asked for with --force"], again=True)
    if report["verdict"] == "cannot tell":
        return Outcome(UNSURE, f"cannot tell: {report['reasons'][0]}")
    if not report["alarm"]:
        return Outcome(0, "nothing to do: no alarm")
    if report["warnings"]:  # no model learns from labels that somebody may have poisoned
        signs = f"signs of abuse ({report['warnings'][0]})"
        return Outcome(UNSURE, f"cannot tell: {signs}; look, then use --force")
    return retrain(settings, report["reasons"])


def _record(outcome: Outcome, fields: dict[str, Any]) -> None:
    """The line in logs/routine.jsonl, and the same in words on the terminal."""
    fields |= {
        "end": datetime.now(UTC).isoformat(timespec="seconds"),
        "outcome": outcome.words,
        "exit_code": outcome.code,
        "error": outcome.error,
        "branch": outcome.branch,
    }
    log = logs.get("routine")
    if outcome.error:
        log.error("error: %s", outcome.error, extra={"fields": fields})
    else:
        log.info("%s", outcome.words, extra={"fields": fields})
    if outcome.branch:
        print(f"review and merge: git merge {outcome.branch} && dvc checkout")

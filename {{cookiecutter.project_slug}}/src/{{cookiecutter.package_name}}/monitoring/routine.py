"""The one scheduled entry point: monitors and, where that asks for it, retrains through the same
gates.

    python -m <package> routine            # cron: 15 4 * * * cd <project> && .venv/bin/python -m <package> routine

Exit code 0 nothing to do or promoted, 3 refused by the gates, 4 cannot tell (a person must look), 1
failed. Every run is one line in logs/routine.jsonl. Your checkout is not touched: a retraining
makes a branch to review and merge.
"""

import argparse
import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import logs
from ..provenance import write_json
from ..settings import Settings
from .monitor import CANNOT_TELL, monitor
from .retrain import Outcome, retrain

NOTHING, FAILED, UNSURE = 0, 1, 4


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force", action="store_true", help="retrain without an alarm; the gates decide as always"
    )
    parser.add_argument(
        "--scheduled",
        metavar="TIME",
        help="when this run was meant to start (ISO 8601), for the log",
    )


def run(settings: Settings, args: argparse.Namespace) -> int:
    """One run at a time; whatever happens, logs/routine.jsonl gets its line."""
    from filelock import FileLock, Timeout

    started = datetime.now(UTC)
    before = signal.signal(
        signal.SIGTERM, lambda number, frame: sys.exit(128 + number)
    )  # so that `finally` is done
    settings.paths.state.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(settings.paths.state / "routine.lock", timeout=0):
            number = _count(settings.paths.state / "routine-runs.json")
            try:
                outcome = routine(settings, args.force)
            except (
                Exception
            ) as error:  # the scheduler's log must say what went wrong, whatever it was
                outcome = Outcome(
                    FAILED, "failed", error=" ".join(str(error).split()) or repr(error)
                )
            except BaseException:  # interrupted or told to exit
                _record(
                    Outcome(FAILED, "failed", error="interrupted"), number, started, args.scheduled
                )
                raise
    except Timeout:
        number, outcome = (
            None,
            Outcome(FAILED, "failed", error="another routine is running: wait for it to end"),
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    _record(outcome, number, started, args.scheduled)
    return outcome.code


def routine(settings: Settings, force: bool) -> Outcome:
    """Monitor, decide, and retrain where that is the decision."""
    report = monitor(settings)
    stop = policy(report, force)
    if stop:
        return stop
    reasons = ["asked for with --force"] if force else report["reasons"]
    return retrain(settings, reasons, again=force)


def policy(report: dict[str, Any], force: bool) -> Outcome | None:
    """The end of the run where there is nothing to retrain for, or no way to know; None means
    retrain.
    """
    if force:
        return None
    if report["verdict"] == CANNOT_TELL:
        return Outcome(UNSURE, f"cannot tell: {report['reasons'][0]}")
    if not report["alarm"]:
        return Outcome(NOTHING, "nothing to do: no alarm")
    if report[
        "warnings"
    ]:  # labels that someone may have poisoned must not train a model without a person's look
        return Outcome(
            UNSURE, f"cannot tell: signs of abuse ({report['warnings'][0]}); look, then use --force"
        )
    return None


def _count(path: Path) -> int:
    """The number of this run."""
    number = 1 + (json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else 0)
    write_json(path, {"runs": number})
    return number


def _record(outcome: Outcome, number: int | None, started: datetime, scheduled: str | None) -> None:
    """The line in logs/routine.jsonl, and the same in words on the terminal."""
    fields = {
        "scheduled": scheduled or started.isoformat(timespec="seconds"),
        "start": started.isoformat(timespec="seconds"),
        "end": datetime.now(UTC).isoformat(timespec="seconds"),
        "outcome": outcome.words,
        "exit_code": outcome.code,
        "error": outcome.error,
        "branch": outcome.branch,
        "run": number,
    }
    log = logs.get("routine")
    tell = log.error if outcome.error else log.info
    tell(
        "%s",
        f"error: {outcome.error}" if outcome.error else outcome.words,
        extra={"fields": fields},
    )
    if outcome.branch:
        print(f"review and merge: git merge {outcome.branch} && dvc checkout")

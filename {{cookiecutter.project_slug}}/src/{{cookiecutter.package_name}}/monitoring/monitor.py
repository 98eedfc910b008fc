"""Judges the newest stored predictions of the champion: drift against the bundle's reference,
errors, signs of abuse.

    python -m <package> monitor [monitoring.window=500 ...]

Exit code 0 no alarm, 3 alarm, 4 cannot tell (too few predictions). Writes reports/monitor.json,
.html and .prom (for the textfile collector of Prometheus' node exporter).
"""

import argparse
import importlib.util
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from .. import logs, pages, personal
from ..packaging.bundle import Bundle, load_live
from ..provenance import stamp, write_json
from ..serving.store import model_of, models, recent
from ..settings import Settings
from . import drift, quality
from .samples import Row, reference_sample, stored_sample

EXIT = {"no alarm": 0, "alarm": 3, "cannot tell": 4}
MAX_REASONS = 5
LOOK_BACK = 10  # windows of predictions, of all versions, that the table of versions speaks of
ABUSE = importlib.util.find_spec(f"{__package__}.abuse")  # only the full profile has it
Report = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond the settings."""


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes and prints the report; its verdict is the exit code."""
    return EXIT[monitor(settings)["verdict"]]


def monitor(settings: Settings) -> Report:
    """Reads the window, judges it, and writes reports/monitor.{json,html,prom}."""
    from .report import prometheus, show, write_html

    with logs.stage("monitor") as log:
        version, bundle = load_live(settings.paths.live)
        store, size = settings.paths.store, settings.monitoring.window
        if not store.is_file():
            raise ValueError(
                f"no predictions in {store}: start `make serve` and send requests first"
            )
        rows, everything = recent(store, size, bundle.identity), recent(store, LOOK_BACK * size)
        report = judge(settings, rows, bundle, version)
        confidence = 1 - settings.monitoring.alpha
        present = {**models(store), bundle.identity: model_of(bundle.card)}
        report["versions"] = quality.by_version(everything, present, confidence)
        reports = settings.paths.reports
        write_json(reports / "monitor.json", report)
        write_html(reports / "monitor.html", settings.project.title, report, rows, bundle)
        prometheus(reports / "monitor.prom", report)
        show(report)
        level = log.warning if report["alarm"] else log.info
        fields = {name: report[name] for name in ("reasons", "warnings", "version", "identity")}
        level("%s", report["verdict"], extra={"fields": fields})
    return report


def judge(settings: Settings, rows: list[Row], bundle: Bundle, version: str) -> Report:
    """Everything the report says about a window, ready for JSON."""
    limits = settings.monitoring
    numbers = quality.measure(rows, model_of(bundle.card), 1 - limits.alpha)
    tests: list[drift.Result] = []
    if len(rows) >= limits.min_rows:
        reference, window = reference_sample(bundle), stored_sample(rows, bundle.card)
        tests = drift.compare(reference, window, bundle.card.labels, limits, settings.seed)
    marks = {f"signal {name}" for name in personal.marks(bundle.card.features)}
    marks |= {f"signal {name}" for name in personal.marks(settings.data.features)}
    tests = [replace(test, detail="") if test.name in marks else test for test in tests]
    reasons = alarms(tests, numbers, limits.max_error_rate)
    verdict = "alarm" if reasons else "no alarm"
    if not reasons and not tests:
        verdict = "cannot tell"
        reasons = [f"{len(rows)} predictions of version {version}, {limits.min_rows} are needed"]
    abuse = importlib.import_module(ABUSE.name) if ABUSE else None
    duplicates = abuse.duplicate_share(rows) if abuse else None
    times = [datetime.fromtimestamp(row["time"], UTC).isoformat(timespec="seconds") for row in rows]
    return {
        "verdict": verdict,
        "alarm": verdict == "alarm",
        "reasons": reasons,
        "warnings": abuse.signs(rows, limits) if abuse else [],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version,
        "identity": bundle.identity,
        "window": {
            "rows": len(rows),
            "min_rows": limits.min_rows,
            "from": times[0] if times else None,
            "to": times[-1] if times else None,
        },
        "alpha": limits.alpha,
        "max_error_rate": limits.max_error_rate,
        "personal": sorted(marks),
        "tests": [{**asdict(test), "words": test.words} for test in tests],
        "quality": {**numbers, "duplicate_share": duplicates},
        "provenance": stamp(settings, "monitor", bundle.identity),
    }


def alarms(tests: list[drift.Result], numbers: Report, max_error_rate: float) -> list[str]:
    """One sentence per alarm: tests that survive the correction, and an error rate that is surely
    over its limit.

    Of many tests the most certain are told; the report has them all.
    """
    changed = sorted((test for test in tests if test.alarm), key=lambda test: test.adjusted)
    sentences = []
    for test in changed[:MAX_REASONS]:
        numbers_of = f"{test.effect_name} {test.effect:.2f}, adjusted {pages.chance(test.adjusted)}"
        detail = test.detail.replace("most: ", "mostly the ")
        words = f"{test.name} {test.words}: {detail}".removesuffix(": ")
        sentences.append(f"{words} ({numbers_of})")
    if len(changed) > MAX_REASONS:
        sentences.append(f"and {len(changed) - MAX_REASONS} more, in the report's table")
    low, high = numbers["error_interval"] or (0.0, 0.0)
    if low > max_error_rate:
        rate = f"error rate {numbers['error_rate']:.3f} [{low:.3f}, {high:.3f}]"
        limit = f"is over {max_error_rate:g}, on {numbers['labelled']} labelled rows"
        sentences.append(f"{rate} {limit}")
    return sentences

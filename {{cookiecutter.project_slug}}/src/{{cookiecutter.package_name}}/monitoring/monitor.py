"""Judges the newest stored predictions of the champion: drift against the bundle's reference,
errors, signs of abuse.

    python -m <package> monitor [monitoring.window=500 ...]

Exit code 0 no alarm, 3 alarm, 4 cannot tell (too few predictions). Writes reports/monitor.json,
.html and .prom (for the textfile collector of Prometheus' node exporter).
"""

import argparse
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from .. import logs
from ..packaging.bundle import Bundle
from ..provenance import read_json, stamp, write_json
from ..serving.store import recent
from ..settings import Settings
from . import drift, quality
from .samples import reference_sample, stored_sample

NO_ALARM, ALARM, CANNOT_TELL = "no alarm", "alarm", "cannot tell"
MAX_REASONS = 5
LOOK_BACK = 10  # windows of predictions, of all versions, that the table of versions speaks of
EXIT = {NO_ALARM: 0, ALARM: 3, CANNOT_TELL: 4}
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
        version, bundle = champion(settings)
        store, size = settings.paths.store, settings.monitoring.window
        if not store.is_file():
            raise ValueError(
                f"no predictions in {store}: start `make serve` and send requests first"
            )
        rows, everything = recent(store, size, bundle.identity), recent(store, LOOK_BACK * size)
        report = judge(settings, rows, bundle, version)
        report["versions"] = versions(everything, bundle.card.labels, 1 - settings.monitoring.alpha)
        write_json(settings.paths.reports / "monitor.json", report)
        write_html(settings.paths.reports / "monitor.html", report, rows, bundle)
        prometheus(settings.paths.reports / "monitor.prom", report)
        show(report)
        level = log.warning if report["alarm"] else log.info
        told = {name: report[name] for name in ("reasons", "warnings", "version", "identity")}
        level("%s", report["verdict"], extra={"fields": told})
    return report


def champion(settings: Settings) -> tuple[str, Bundle]:
    """Version and bundle that answer now. Raises ValueError where nothing was promoted yet."""
    current = settings.paths.live / "current.json"
    if not current.is_file():
        raise ValueError("no model to monitor: run `make pipeline` first")
    entry = read_json(current)["champion"]
    return entry["version"], Bundle.load(settings.paths.live / entry["path"])


def judge(settings: Settings, rows: list[quality.Row], bundle: Bundle, version: str) -> Report:
    """Everything the report says about a window, ready for JSON."""
    limits, labels = settings.monitoring, bundle.card.labels
    numbers = quality.measure(rows, labels, 1 - limits.alpha)
    tests: list[drift.Result] = []
    if len(rows) >= limits.min_rows:
        reference, sample = reference_sample(bundle), stored_sample(rows, labels)
        cap, seed = limits.max_reference, settings.seed
        tests = drift.compare(
            reference, sample, labels, alpha=limits.alpha, max_rows=cap, seed=seed
        )
    reasons = alarms(tests, numbers, limits.max_error_rate)
    verdict = ALARM if reasons else NO_ALARM if tests else CANNOT_TELL
    if verdict == CANNOT_TELL:
        reasons = [f"{len(rows)} predictions of version {version}, {limits.min_rows} are needed"]
    return {
        "verdict": verdict,
        "alarm": verdict == ALARM,
        "reasons": reasons,
        "warnings": warnings(rows, settings),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version,
        "identity": bundle.identity,
        "window": {
            "rows": len(rows),
            "min_rows": limits.min_rows,
            "from": _when(rows[:1]),
            "to": _when(rows[-1:]),
        },
        "alpha": limits.alpha,
        "max_error_rate": limits.max_error_rate,
        "tests": [{**asdict(t), "words": t.words} for t in tests],
        "quality": {**asdict(numbers), "duplicate_share": quality.duplicate_share(rows)},
        "provenance": stamp(settings, "monitor", bundle.identity),
    }


def versions(rows: list[quality.Row], labels: list[str], confidence: float) -> dict[str, Report]:
    """Quality and share of requests per version."""
    found = quality.by_version(rows, labels, confidence)
    return {
        name: {**asdict(numbers), "request_share": numbers.rows / len(rows)}
        for name, numbers in found.items()
    }


def alarms(tests: list[drift.Result], numbers: quality.Quality, max_error_rate: float) -> list[str]:
    """One sentence per alarm: tests that survive the correction, and an error rate that is surely
    over its limit.

    Of many tests the most certain are told; the report has them all.
    """
    changed = sorted((t for t in tests if t.alarm), key=lambda t: t.adjusted)
    found = [
        f"{t.name} {t.words} ({t.effect_name} {t.effect:.2f}, adjusted p {t.adjusted:.2g}; {t.detail})"
        for t in changed[:MAX_REASONS]
    ]
    if len(changed) > MAX_REASONS:
        found.append(f"and {len(changed) - MAX_REASONS} more, in the report's table")
    low, high = numbers.error_interval or (0.0, 0.0)
    if numbers.error_rate is not None and low > max_error_rate:
        rate = f"error rate {numbers.error_rate:.3f} [{low:.3f}, {high:.3f}]"
        found.append(f"{rate} is over {max_error_rate:g}, on {numbers.labelled} labelled rows")
    return found


def warnings(rows: list[quality.Row], settings: Settings) -> list[str]:
    """Signs of abuse. They never start a retraining: they say that its data may be poisoned."""
    limits = settings.monitoring
    duplicates, contradictions = quality.duplicate_share(rows), quality.contradiction_share(rows)
    found = []
    if duplicates > limits.max_duplicates:
        found.append(f"{duplicates:.0%} of the requests repeat an earlier one: a flood?")
    if contradictions > limits.max_contradictions:
        found.append(
            f"{contradictions:.0%} of the labelled requests have other labels for equal input: flipped?"
        )
    return found


def _when(rows: list[quality.Row]) -> str | None:
    return (
        datetime.fromtimestamp(rows[0]["time"], UTC).isoformat(timespec="seconds") if rows else None
    )

"""Prints every row of checklist.yaml with its status and its proof; `--json` for programs."""

import argparse
import json
import tomllib
from collections import Counter
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from . import pages
from .packaging.bundle import Bundle
from .provenance import read_json, source_code, stamp
from .settings import Settings

DESIGN = Path("docs/design.md")
TESTS = ("tests.json", "machinery.json")  # what `make test` and `make test-machinery` leave
NO_ROW = "no test of it ran on this code: run `make test` or `make test-machinery`"


class Project(NamedTuple):
    """What proofs are held against; `changed` says by stage what DVC sees changed since it ran."""

    settings: Settings
    changed: dict[str, Any]
    code: str
    profile: str


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="one JSON object, row id to status and proof"
    )


def project_now(settings: Settings) -> Project:
    from dvc.repo import Repo

    tools = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return Project(settings, Repo().status(), source_code(), tools["project"]["profile"])


def at(content: Any, key: str) -> Any:
    """Value at a dotted key, list items by number; None where it is missing."""
    try:
        for name in key.split("."):
            content = content[int(name) if isinstance(content, list) else name]
    except (LookupError, TypeError):
        return None
    return content


def met(value: Any, wanted: Any) -> bool:
    """Whether a value is as a row wants it: equal, one of `any`, or its number or length within
    `min` and `max`.
    """
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    if value is None or "any" in wanted:
        return value in wanted.get("any", [])
    size = len(value) if hasattr(value, "__len__") else value
    return bool(wanted.get("min", -inf) <= size <= wanted.get("max", inf))


def prove_report(proof: dict[str, Any], project: Project) -> str:
    """Names the report. Raises ValueError where it says otherwise, or does not speak of the present
    code, data, configuration and bundle.
    """
    paths = project.settings.paths
    path = paths.reports / proof["report"]
    if not path.is_file():
        raise ValueError(f"there is no {path}: run {proof.get('command', '`make pipeline`')}")
    if project.changed:
        raise ValueError(f"stale since {', '.join(project.changed)} changed: run `make pipeline`")
    content = read_json(path)
    if made := content.get("provenance"):
        bundle = made["bundle"] and Bundle.load(paths.bundle).identity
        if made != stamp(project.settings, made["stage"], bundle):
            raise ValueError(f"the code, data or bundle that {path} speaks of changed since")
    for key, wanted in proof["expect"].items():
        if not met(at(content, key), wanted):
            raise ValueError(f"{path}: {key} is missing or not as it should be")
    return f"{path} ({', '.join(proof['expect'])})"


def prove_tests(row: str, project: Project) -> str:
    """Counts the row's tests. Raises ValueError where one failed or none ran on this code."""
    outcomes: dict[str, str] = {}
    for path in [project.settings.paths.reports / name for name in TESTS]:
        record = read_json(path) if path.is_file() else {}
        if record.get("code") == project.code:
            outcomes |= record["rows"].get(row, {})
    failed = [name for name, outcome in outcomes.items() if outcome != "passed"]
    if failed or not outcomes:
        raise ValueError(f"did not pass: {failed[0]}" if failed else NO_ROW)
    return f"{len(outcomes)} tests passed"


def answer(section: str, data: str) -> str:
    """The first words of the section's answer in docs/design.md; empty where it is missing or about
    other data.
    """
    text = DESIGN.read_text(encoding="utf-8")
    if f"Answers for the data set: {data}\n" not in text:
        return ""
    content = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in content.splitlines() if not line.startswith(">")]
    return " ".join(lines).strip()[:80]


def judge(row: str, entry: dict[str, Any], project: Project) -> tuple[str, str]:
    """Status and proof of one row."""
    if entry.get("needs", project.profile) != project.profile:
        return "not applicable", f"profile {project.profile}"
    if "excuse" in entry:
        return "not applicable", entry["excuse"]
    proofs = []
    if "ask" in entry:
        words = answer(entry["ask"], project.settings.data.name)
        if not words:
            return "unanswered", f"answer “{entry['ask']}” in {DESIGN}"
        proofs = [f"{DESIGN}: {words}"]
    if "missing" in entry:
        return "not yet", f"missing: {entry['missing']}"
    try:
        for proof in entry["proof"]:
            tests = "tests" in proof
            proofs.append(prove_tests(row, project) if tests else prove_report(proof, project))
    except (ValueError, OSError, KeyError) as error:
        return "not yet", str(error)
    return "proven", "; ".join(proofs)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Exit code 0: this reports, it does not judge."""
    entries, excuses = (
        yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        for name in ("checklist.yaml", "not_applicable.yaml")
    )
    project, results = project_now(settings), {}
    for row, excuse in excuses.items():
        entries[row]["excuse"] = excuse
    for row, entry in entries.items():
        results[row] = judge(row, entry, project)
    if args.json:
        records = {row: {"status": pair[0], "proof": pair[1]} for row, pair in results.items()}
        print(json.dumps(records, indent=2))
        return 0
    rows = [[row, entries[row]["title"], *pair] for row, pair in results.items()]
    pages.print_table("", ["row", "what", "status", "proof, or what is missing"], rows)
    counts = Counter(status for status, _ in results.values())
    print(", ".join(f"{num} {status}" for status, num in counts.items()))
    return 0

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
from .packaging.bundle import Bundle, load_live
from .provenance import read_json, source_code, stamp
from .settings import Settings

DESIGN, NOT_APPLICABLE = Path("docs/design.md"), Path("not_applicable.yaml")
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
    for name in key.split("."):
        try:
            content = content[int(name)] if isinstance(content, list) else content[name]
        except (LookupError, TypeError, ValueError):
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


def check_pipeline(project: Project) -> None:
    """Raises ValueError where code, data, configuration or an output changed since."""
    if project.changed:
        raise ValueError(f"stale since {', '.join(project.changed)} changed: run `make pipeline`")


def prove_report(row: str, proof: dict[str, Any], project: Project) -> str:
    path = project.settings.paths.reports / proof["report"]
    if not path.is_file():
        raise ValueError(f"there is no {path}: run {proof.get('command', '`make pipeline`')}")
    check_pipeline(project)
    content = read_json(path)
    if made := content.get("provenance"):
        bundle = made["bundle"] and Bundle.load(project.settings.paths.bundle).identity
        if made != stamp(project.settings, made["stage"], bundle):
            raise ValueError(f"the code, data or bundle that {path} speaks of changed since")
    for key, wanted in proof["expect"].items():
        if not met(at(content, key), wanted):
            raise ValueError(f"{path}: {key} is missing or not as it should be")
    return f"{path} ({', '.join(proof['expect'])})"


def prove_tests(row: str, proof: dict[str, Any], project: Project) -> str:
    outcomes: dict[str, str] = {}
    for path in [project.settings.paths.reports / name for name in TESTS]:
        record: dict[str, Any] = read_json(path) if path.is_file() else {"code": None}
        if record["code"] == project.code:
            outcomes |= record["rows"].get(row, {})
    for name, outcome in outcomes.items():
        if outcome != "passed":
            raise ValueError(f"did not pass: {name}")
    if not outcomes:
        raise ValueError(NO_ROW)
    return f"{len(outcomes)} tests passed"


def prove_bundle(row: str, proof: dict[str, Any], project: Project) -> str:
    check_pipeline(project)
    folder = Bundle.load(project.settings.paths.bundle).folder
    return f"{folder}, {len(list(folder.iterdir()))} files match their hashes"


def prove_champion(row: str, proof: dict[str, Any], project: Project) -> str:
    paths = project.settings.paths
    version, champion = load_live(paths.live)
    if champion.identity != Bundle.load(paths.bundle).identity:
        raise ValueError("the champion in live/ is not the current bundle: run `make pipeline`")
    for record in map(json.loads, paths.audit.read_text(encoding="utf-8").splitlines()):
        if record["identity"] == champion.identity and record["action"] in ("promote", "rollback"):
            return f"{paths.audit} says why {version} is champion"
    raise ValueError(f"{paths.audit} does not say why {version} is champion")


PROVERS = {
    "report": prove_report,
    "tests": prove_tests,
    "bundle": prove_bundle,
    "champion": prove_champion,
}


def answer(section: str, data: str) -> str:
    """The first words of the section's answer in docs/design.md; empty where it is missing or about
    other data.
    """
    text = DESIGN.read_text(encoding="utf-8") if DESIGN.is_file() else ""
    if f"Answers for the data set: {data}" not in text.splitlines():
        return ""
    content = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in content.splitlines() if not line.startswith(">")]
    return " ".join(lines).strip()[:80]


def judge(row: str, entry: dict[str, Any], project: Project) -> tuple[str, str]:
    """Status and proof of one row."""
    if entry.get("needs", project.profile) != project.profile:
        return "not applicable", f"profile {project.profile}"
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
            proofs.append(PROVERS[next(iter(proof))](row, proof, project))
    except (ValueError, OSError, KeyError) as error:
        return "not yet", str(error)
    return "proven", "; ".join(proofs)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Exit code 0: this reports, it does not judge."""
    project, excused, found = project_now(settings), {}, {}
    if NOT_APPLICABLE.is_file():
        excused = yaml.safe_load(NOT_APPLICABLE.read_text(encoding="utf-8"))
    entries = yaml.safe_load(Path("checklist.yaml").read_text(encoding="utf-8"))
    for row, entry in entries.items():
        status, proof = judge(row, entry, project)
        if row in excused and status != "not applicable":
            status, proof = "not applicable", excused[row]
        found[row] = {"status": status, "proof": proof}
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [[row, entries[row]["title"], *judged.values()] for row, judged in found.items()]
    pages.print_table("", ["row", "what", "status", "proof, or what is missing"], rows)
    counts = Counter(judged["status"] for judged in found.values())
    print(", ".join(f"{num} {status}" for status, num in counts.items()))
    return 0

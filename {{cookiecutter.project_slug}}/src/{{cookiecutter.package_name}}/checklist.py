"""Prints every row of checklist.yaml with its status and its proof; `--json` for programs."""

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from .packaging.bundle import Bundle
from .packaging.pull import CURRENT
from .params import PARAMS
from .provenance import STAGE_CODE, data_version, read_json, sha256, source_code, stage_code
from .settings import Settings

ROWS, NOT_APPLICABLE, DESIGN, LOCK = (
    Path("checklist.yaml"),
    Path("not_applicable.yaml"),
    Path("docs/design.md"),
    Path("dvc.lock"),
)
COMMANDS = {
    "replay.json": "serve, then replay",
    "monitor.json": "serve, replay, monitor",
    "tests.json": "make test",
}
Status = dict[str, str]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="one JSON object, row id to status and proof"
    )


def at(content: Any, key: str) -> Any:
    """Value at a dotted key; list items by number. Raises ValueError where it is missing."""
    for name in key.split("."):
        try:
            content = content[int(name)] if isinstance(content, list) else content[name]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"{key} is missing") from None
    return content


def met(value: Any, wanted: Any) -> bool:
    """Whether a value is as a row wants it: equal, one of `any`, or its number or length within
    `min` and `max`.
    """
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    if "any" in wanted:
        return value in wanted["any"]
    size = len(value) if hasattr(value, "__len__") else value
    return isinstance(size, int | float) and wanted.get("min", size) <= size <= wanted.get(
        "max", size
    )


def check_lock(path: Path) -> None:
    """Raises ValueError where a pipeline output was changed by hand or its parameters changed
    since.
    """
    stages = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"] if LOCK.is_file() else {}
    present = yaml.safe_load(
        PARAMS.read_text(encoding="utf-8")
    )  # as DVC reads it, without defaults
    for name, stage in stages.items():
        for out in stage.get("outs", []):
            if out["path"] != path.as_posix():
                continue
            if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != out["md5"]:
                raise ValueError(f"{path} is not what stage {name} wrote: run `make pipeline`")
            locked = stage.get("params", {}).get("params.yaml", {})
            changed = [key for key, value in locked.items() if at(present, key) != value]
            if changed:
                raise ValueError(f"{', '.join(changed)} changed since: run `make pipeline`")


def check_current(made: dict[str, Any], settings: Settings) -> None:
    """Raises ValueError where the hashes an artefact carries are not those of the present code,
    data and bundle.
    """
    if made["stage"] not in STAGE_CODE or made["code"] != stage_code(made["stage"]):
        raise ValueError("the code changed since")
    if made["data"] != data_version(settings):
        raise ValueError("the data changed since")
    if made["bundle"] is not None and made["bundle"] != Bundle.load(settings.paths.bundle).identity:
        raise ValueError("the bundle changed since")


def prove_report(row: str, proof: dict[str, Any], settings: Settings) -> str:
    path = settings.paths.reports / proof["report"]
    if not path.is_file():
        raise ValueError(f"run {COMMANDS.get(path.name, '`make pipeline`')}: there is no {path}")
    content = read_json(path)
    check_lock(path)
    if "provenance" in content:
        check_current(content["provenance"], settings)
    wrong = [key for key, wanted in proof["expect"].items() if not met(at(content, key), wanted)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} is not as it should be")
    return f"{path} ({', '.join(proof['expect'])})"


def prove_tests(row: str, proof: dict[str, Any], settings: Settings) -> str:
    path = settings.paths.reports / "tests.json"
    if not path.is_file():
        raise ValueError("run `make test`")
    content = read_json(path)
    if content["code"] != source_code():
        raise ValueError("code or tests changed since: run `make test`")
    outcomes = content["rows"].get(row, {})
    bad = [name for name, outcome in outcomes.items() if outcome != "passed"]
    if bad or not outcomes:
        raise ValueError(
            f"did not pass: {', '.join(bad)}"
            if bad
            else "no test of this row ran in the last `make test`"
        )
    return f"{len(outcomes)} tests passed"


def prove_bundle(row: str, proof: dict[str, Any], settings: Settings) -> str:
    bundle = Bundle.load(settings.paths.bundle)
    if bundle.card.data != data_version(settings) or bundle.card.code != stage_code("package"):
        raise ValueError("code or data changed since the bundle was made: run `make pipeline`")
    return f"{bundle.folder}, {len(list(bundle.folder.iterdir()))} files match their hashes"


def prove_champion(row: str, proof: dict[str, Any], settings: Settings) -> str:
    champion = read_json(settings.paths.live / CURRENT)["champion"]
    if Bundle.load(settings.paths.live / champion["path"]).identity != champion["identity"]:
        raise ValueError("live/ does not hold what the registry promoted: run `make pipeline`")
    lines = settings.paths.audit.read_text(encoding="utf-8").splitlines()
    records = [
        r
        for r in map(json.loads, lines)
        if r["identity"] == champion["identity"] and r["action"] in ("promote", "rollback")
    ]
    if not records or champion["identity"] != Bundle.load(settings.paths.bundle).identity:
        raise ValueError(
            "the champion is not the current bundle, or has no audit record: run `make pipeline`"
        )
    return f"{settings.paths.audit} says why {champion['version']} is champion ({sha256(settings.paths.audit)[:8]})"


def answered(section: str, settings: Settings) -> str | None:
    """The first words of the section's answer in docs/design.md; None where it is missing or about
    other data.
    """
    text = DESIGN.read_text(encoding="utf-8") if DESIGN.is_file() else ""
    about = re.search(r"^Answers for the data set: (.+)$", text, re.M)
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    lines = [
        line
        for line in (found.group(1).splitlines() if found else [])
        if line.strip() and not line.startswith(">")
    ]
    if not about or about.group(1).strip() != settings.data.name or not lines:
        return None
    return " ".join(lines)[:80]


def prove_answer(row: str, proof: dict[str, Any], settings: Settings) -> str:
    return f"{DESIGN}: {proof['answer']}"


PROVERS = {
    "answer": prove_answer,
    "report": prove_report,
    "tests": prove_tests,
    "bundle": prove_bundle,
    "champion": prove_champion,
}


def judge(row: str, entry: dict[str, Any], settings: Settings, excused: dict[str, str]) -> Status:
    """Status and proof of one row."""
    if row in excused:
        return {"status": "not applicable", "proof": excused[row]}
    if "needs" in entry and not Path(entry["needs"]).exists():
        return {"status": "not applicable", "proof": "profile lean"}
    if "ask" in entry:
        answer = answered(entry["ask"], settings)
        if answer is None:
            return {"status": "unanswered", "proof": f"answer “{entry['ask']}” in {DESIGN}"}
        entry = {**entry, "proof": [*entry.get("proof", []), {"answer": answer}]}
    if "missing" in entry:
        return {"status": "not yet", "proof": f"missing: {entry['missing']}"}
    try:
        found = [PROVERS[next(iter(proof))](row, proof, settings) for proof in entry["proof"]]
    except (ValueError, OSError, KeyError) as error:
        return {"status": "not yet", "proof": str(error)}
    return {"status": "proven", "proof": "; ".join(found)}


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Exit code 0: this reports, it does not judge."""
    rows = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    excused = (
        yaml.safe_load(NOT_APPLICABLE.read_text(encoding="utf-8"))
        if NOT_APPLICABLE.is_file()
        else {}
    )
    found = {row: judge(row, entry, settings, excused) for row, entry in rows.items()}
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("row", "what", "status", "proof, or what is missing")
    colours = {"proven": "green", "not yet": "yellow", "unanswered": "red", "not applicable": "dim"}
    for row, status in found.items():
        colour = colours[status["status"]]
        table.add_row(
            row,
            rows[row]["title"],
            f"[{colour}]{status['status']}[/{colour}]",
            status["proof"].replace("[", r"\["),
        )
    Console().print(table)
    counts = {status: sum(f["status"] == status for f in found.values()) for status in colours}
    print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return 0

"""Every fault of docs/data_checks.md, planted for real: it is named, the exit code says so, and
nothing goes on.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from faults import FAULTS, break_row, store
from harness import ROOT, Project, dvc, module

LEAKING = ["data.split.key=id"]  # equal rows share a split otherwise
FILE_FAULTS = {
    "a file cut short": ("validate", "SHA-256 in the manifest", "differs from its manifest", 2),
    "a bit flipped in the DVC cache, same time stamp": (
        "validate",
        "SHA-256 in the manifest",
        "differs from its manifest",
        2,
    ),
}


def table() -> dict[str, tuple[str, str, str, int]]:
    """The fault table of the page."""
    text = (ROOT / "docs" / "data_checks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| `(\w+)` \| (.+?) \| `(.+?)` \| (\d) \|$", text, re.M)
    return {fault: (stage, check, says, int(code)) for fault, stage, check, says, code in rows}


@pytest.mark.row("D5", "D6")
def test_the_page_shows_what_is_tested() -> None:
    tested = {name: (f.stage, f.check, f.says, f.code) for name, f in FAULTS.items()}
    assert table() == {**tested, **FILE_FAULTS}


@pytest.mark.row("D5", "D6", "D7")
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_and_ends_its_stage(name: str, project: Project) -> None:
    fault = FAULTS[name]
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    store(project, fault.change(rows, project.settings().data))
    overrides = LEAKING if name == "equal rows in two splits" else []
    assert module("__main__").main([fault.stage, *overrides]) == fault.code
    path = project.settings().paths.reports / (
        "validation.json" if fault.stage == "validate" else "splits.json"
    )
    report = json.loads(path.read_text(encoding="utf-8"))
    if fault.stage == "split":
        assert report[fault.check] and not project.settings().paths.splits.exists()
        assert fault.says in " ".join(report["faults"])
        return
    named = {
        "row rules": report["rules"] + report["examples"],
        **{c["check"]: c for c in report["checks"] if not c["ok"]},
    }
    assert not report["ok"] and fault.says in json.dumps(named[fault.check])


def damage(path: Path) -> None:
    """Flips one bit and keeps the time stamp."""
    time, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))


@pytest.mark.row("D5", "D6")
def test_a_file_cut_short_is_refused(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.run("ingest")
    path = project.settings().paths.raw / module("data.ingest").FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for stage in ("validate", "split"):
        assert module("__main__").main([stage]) == 2
        assert FILE_FAULTS["a file cut short"][2] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.row("D3", "D5", "D6")
def test_a_bit_flipped_in_the_cache_is_noticed_by_us_and_not_by_dvc(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.run("ingest")
    raw = project.settings().paths.raw
    Path("dvc.yaml").unlink()
    shutil.rmtree(".dvc", ignore_errors=True)
    dvc("init", "--no-scm", "--quiet", check=True)
    dvc("add", "--quiet", str(raw), check=True)
    original = (raw / module("data.ingest").FILE).read_bytes()
    cached = [
        p for p in Path(".dvc/cache").rglob("*") if p.is_file() and p.read_bytes() == original
    ]
    assert len(cached) == 1
    damage(cached[0])
    shutil.rmtree(raw)
    dvc("checkout", "--quiet", check=True)  # restores the damaged object without a word
    assert (raw / module("data.ingest").FILE).read_bytes() != original
    assert module("__main__").main(["validate"]) == 2
    assert (
        FILE_FAULTS["a bit flipped in the DVC cache, same time stamp"][2] in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.row("D5")
def test_nothing_downstream_runs_on_invalid_data(project: Project) -> None:
    project.run("ingest")
    rows = break_row(module("data.ingest").read(project.settings()))
    bad = rows.iloc[1:2].drop(columns="content").assign(id="a bad row")
    bad.to_parquet(project.settings().paths.feedback / "bad.parquet", index=False)
    shutil.copytree(ROOT / "src", "src")
    for command in (["init", "--no-scm", "--quiet", "--force"], ["repro", "train"]):
        done = dvc(*command)
    assert done.returncode != 0 and "failed to reproduce 'validate'" in done.stderr
    assert not module("provenance").read_json(project.settings().paths.reports / "validation.json")[
        "ok"
    ]
    assert (
        not project.settings().paths.splits.exists() and not project.settings().paths.model.exists()
    )

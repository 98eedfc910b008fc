"""Shared fixtures: a small trained project made once per session, and the record of which checklist
rows passed.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import ROOT, SMALL, Project, lay_out, module

module("__main__").bypass_proxies()  # tests speak to servers on this machine


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after ingest … package, trained for a few epochs; copied, never used as it is."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    try:
        lay_out(folder)
        for verb in ("ingest", "validate", "split", "train", "evaluate", "package"):
            assert Project(folder, SMALL).run(verb) == 0, verb
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """An empty project in a folder of its own, which is the working directory."""
    before = Path.cwd()
    lay_out(tmp_path)
    yield Project(tmp_path, SMALL)
    os.chdir(before)


@pytest.fixture
def trained(tmp_path: Path, trained_once: Path) -> Iterator[Project]:
    """A copy of the trained project, which is the working directory; its runs are recorded where
    they were made.
    """
    before = Path.cwd()
    shutil.copytree(trained_once, tmp_path, copy_function=shutil.copyfile, dirs_exist_ok=True)
    os.chdir(tmp_path)
    yield Project(tmp_path, SMALL)
    os.chdir(before)


OUTCOMES: dict[str, dict[str, str]] = {}  # of tests, by checklist row


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1" and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = (
            "failed",
            f"REQUIRE_ALL=1 and yet skipped: {report.longrepr}",
        )
    report.user_properties += [
        ("row", row) for mark in item.iter_markers("row") for row in mark.args
    ]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called where the session is, for tests that ran in another process as well."""
    if report.when == "call" or report.outcome != "passed":
        for row in {str(value) for name, value in report.user_properties if name == "row"}:
            OUTCOMES.setdefault(row, {})[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A whole run leaves its outcome per checklist row in reports/: `make test` in tests.json,
    `make test-machinery` in machinery.json; a part of either leaves nothing.
    """
    config = session.config
    selected = config.option.keyword or config.option.markexpr or hasattr(config, "workerinput")
    names = {"tests": "tests.json", "machinery": "machinery.json"}
    name = names.get(Path(config.args[0]).name) if len(config.args) == 1 else None
    if selected or name is None or not OUTCOMES or Path.cwd() != ROOT:
        return
    paths = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["paths"]
    content = {"code": module("provenance").source_code(), "rows": OUTCOMES}
    module("provenance").write_json(ROOT / paths["reports"] / name, content)

"""What is generated passes its own checks unmodified, in the environment that it makes for itself."""

import json
import time

import pytest
from conftest import ROOT, Baker, Project, note_time
from tasks import TASKS

pytestmark = pytest.mark.slow
CHECKS = {
    "ruff": ("ruff", "check", "."),
    "format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy",),
    "yamllint": ("yamllint", "--strict", "."),
}
NOT_IN_LEAN = set("M5 T7 T8 E2 E4 E5 E7 E9 P5 P6 S4 S9 O5 O6 O8 O9".split())
COMPOSE = """
import yaml
from my_model.pipeline import compose
shipped = open("params.yaml", encoding="utf-8").read()
assert yaml.safe_load(shipped) == yaml.safe_load(compose([]))
"""


@pytest.fixture(params=["full", "lean"])
def project(request: pytest.FixtureRequest, shared: Project, bake: Baker) -> Project:
    return bake(profile=request.param)


@pytest.mark.parametrize("check", CHECKS)
def test_its_own_checks(project: Project, check: str) -> None:
    project.python("-m", *CHECKS[check])


def test_params_are_what_the_configuration_composes_to(project: Project) -> None:
    project.python("-c", COMPOSE)


def test_the_lean_project_runs_its_pipeline_and_its_own_tests(shared: Project, fresh: Baker) -> None:
    """All seven stages; what it has no room for is not applicable, and nothing else is."""
    project = fresh(profile="lean")
    project.env["VENV"] = shared.env["VENV"]
    project.run("git", "init", "--quiet")
    project.run("make", "pipeline")
    started = time.monotonic()
    project.run("make", "test")
    note_time("lean, own tests", time.monotonic() - started)
    found = json.loads(project.python("-m", "my_model", "checklist", "--json").stdout)
    assert {row for row, entry in found.items() if entry["proof"] == "profile lean"} == NOT_IN_LEAN
    assert {found[row]["status"] for row in ("S1", "S3", "M7", "T4", "E1", "E10")} == {"proven"}


@pytest.mark.deep
@pytest.mark.parametrize(
    ("task", "setting", "kind"), [(t.name, setting, kind) for t in TASKS for setting, kind in t.kinds.items()]
)
def test_another_data_set_of_a_task_is_one_setting_away(
    task: str, setting: str, kind: str, shared: Project, fresh: Baker
) -> None:
    project = fresh(task=task)
    project.env["VENV"] = shared.env["VENV"]
    project.run("git", "init", "--quiet")
    project.run("make", "pipeline", f"OVERRIDES={setting}")
    found = json.loads((project.path / "reports/evaluation.json").read_text(encoding="utf-8"))
    assert found["kind"] == kind and found["verdict"] == "pass"


def test_an_author_who_needs_escaping_composes(shared: Project, fresh: Baker) -> None:
    project = fresh(author='O\'Brien "the\\one" {x}: # 😀')
    project.python("-c", COMPOSE)


def test_every_verb_has_help(shared: Project, project: Project) -> None:
    listing = project.python("-m", "my_model", "--help").stdout
    verbs = [line.split()[0] for line in listing.partition("verbs:\n")[2].splitlines() if line.startswith("  ")]
    assert len(verbs) > 10
    for verb in verbs:
        assert f"my_model {verb}" in project.python("-m", "my_model", verb, "--help").stdout


@pytest.mark.parametrize("target", ["setup", "lint", "checklist"])
def test_make_targets_work_as_typed(shared: Project, target: str) -> None:
    shared.run("make", target)


def test_the_workflows_pass_their_linter(project: Project) -> None:
    zizmor = ROOT / ".venv" / "bin" / "zizmor"
    if not zizmor.exists():
        pytest.skip("zizmor is not installed here")
    project.run(zizmor, "--offline", ".github")
    Project(ROOT, project.env).run(zizmor, "--offline", ".github")

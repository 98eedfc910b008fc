"""docs/your_model.md, followed word for word in a fresh project of each task, to the bundle that is promoted."""

import json

import pytest
from conftest import Baker, Project
from tasks import TASKS, Task
from test_your_data import BLOCK

pytestmark = [pytest.mark.slow, pytest.mark.deep]


def follow(project: Project, page: str) -> list[str]:
    """Does what the page says: Python is added to its file, configuration written, commands run. Returns their words.

    Only the environment lies elsewhere: the one that all tests share.
    """
    said = []
    for language, name, content in BLOCK.findall(page):
        path = project.path / name
        if language == "python":
            path.write_text(path.read_text(encoding="utf-8") + f"\n\n{content}", encoding="utf-8")
        elif language == "yaml":
            path.write_text(content, encoding="utf-8")
        else:
            assert language == "sh" and not name
            done = project.run("bash", "-ec", content.replace(".venv/bin", f"{project.env['VENV']}/bin"))
            said.append(done.stdout + done.stderr)
    return said


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_page_leads_from_a_network_of_ones_own_to_a_promoted_bundle(
    task: Task, shared: Project, fresh: Baker
) -> None:
    project = fresh(task=task.name)
    project.env["VENV"] = shared.env["VENV"]
    said = follow(project, (project.path / "docs" / "your_model.md").read_text(encoding="utf-8"))
    assert "no health signs" in said[-1] and "epoch 3/3" in said[-1]
    current = json.loads((project.path / "live" / "current.json").read_text(encoding="utf-8"))
    assert current["champion"]["identity"]
    assert "Residual" in (project.path / "params.yaml").read_text(encoding="utf-8")
    packages = [project.path / "src/my_model/task" / name for name in ("networks.py", "module.py")]
    project.python("-m", "mypy", *packages)


def test_every_block_is_code_configuration_or_a_command(bake: Baker) -> None:
    for task in TASKS:
        page = (bake(task=task.name).path / "docs" / "your_model.md").read_text(encoding="utf-8")
        blocks = BLOCK.findall(page)
        assert len(blocks) == page.count("```") / 2 >= 10
        assert {(language, bool(name)) for language, name, _ in blocks} == {
            ("python", True),
            ("yaml", True),
            ("sh", False),
        }

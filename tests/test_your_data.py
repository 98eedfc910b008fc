"""docs/your_data.md, followed word for word in a fresh project of each task with made-up data, to the served page."""

import contextlib
import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
from conftest import Baker, Project
from tasks import TASKS, Task

pytestmark = [pytest.mark.slow, pytest.mark.deep]
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS, READY_SECONDS = "127.0.0.1:8000", 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(project: Project, command: str, address: str) -> Iterator[None]:
    """`make serve` as it runs in a terminal of its own, once it answers."""
    with project.started("bash", "-c", command) as process:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}/readyz", timeout=2):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"not ready:\n{(project.path / 'process.log').read_text(encoding='utf-8')}")
            time.sleep(0.1)
        yield


def follow(project: Project, page: str) -> list[str]:
    """Does what the page says: files are written, commands run in order. Returns what the commands printed.

    Only the server's port is another one, since 8000 may be taken here.
    """
    address, printed = f"127.0.0.1:{free_port()}", []
    with contextlib.ExitStack() as until_the_end:
        for language, name, content in BLOCK.findall(page):
            if name:
                assert language == "yaml"
                (project.path / name).write_text(content, encoding="utf-8")
            elif content.strip() == "make serve":
                command = f"make serve OVERRIDES=serving.port={address.partition(':')[2]}"
                until_the_end.enter_context(serving(project, command, address))
            else:
                assert language == "sh"
                printed.append(project.run("bash", "-ec", content.replace(ADDRESS, address)).stdout)
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
            assert answer.status == 200 and b"<html" in answer.read()
    return printed


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_page_leads_from_ones_own_data_to_a_served_page(task: Task, shared: Project, fresh: Baker) -> None:
    project = fresh(task=task.name)
    project.env["VENV"] = shared.env["VENV"]
    task.own_data(project)
    printed = follow(project, (project.path / "docs" / "your_data.md").read_text(encoding="utf-8"))
    (prediction,) = json.loads(printed[-1])["predictions"]
    assert prediction["label"] == task.own_label
    champion = json.loads((project.path / "live" / "current.json").read_text(encoding="utf-8"))["champion"]
    assert champion["identity"]


def test_every_block_is_a_file_or_a_command(bake: Baker) -> None:
    for task in TASKS:
        page = (bake(task=task.name).path / "docs" / "your_data.md").read_text(encoding="utf-8")
        blocks = BLOCK.findall(page)
        assert len(blocks) == page.count("```") / 2 >= 5
        assert {language for language, name, _ in blocks if not name} == {"sh"}
        assert "make serve\n" in [content for _, _, content in blocks]

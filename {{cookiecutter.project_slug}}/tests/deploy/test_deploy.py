"""The serving image's file."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.row("P4")


def test_dockerfile_passes_its_linter(deploy: Path, tool: Callable[..., str]) -> None:
    tool("hadolint", "--failure-threshold", "style", deploy / "Dockerfile")


def test_the_image_is_not_root_and_holds_no_training_stack(deploy: Path) -> None:
    text = (deploy / "Dockerfile").read_text(encoding="utf-8")
    users = re.findall(r"^USER\s+(\S+)", text, re.MULTILINE)
    assert users and users[-1].split(":")[0] not in ("root", "0")
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    assert not re.search(r"\[(train|all|dev)\]", text)


def test_the_health_check_asks_without_a_proxy(
    deploy: Path, healthy: Callable[[list[str], int], bool]
) -> None:
    text = (deploy / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    command = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", text, re.MULTILINE)
    assert command is not None
    assert healthy(json.loads(command[1]), 200) and not healthy(json.loads(command[1]), 503)

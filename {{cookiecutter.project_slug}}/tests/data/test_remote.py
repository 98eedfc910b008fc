import shutil
from pathlib import Path

import pytest
from harness import Project, dvc, module


@pytest.mark.slow
@pytest.mark.row("D3")
def test_what_is_pushed_comes_back_byte_for_byte(project: Project, tmp_path: Path) -> None:
    """Through a folder as remote, as the project ships; another remote is another URL."""
    project.run("ingest")
    raw, sha256 = project.settings().paths.raw, module("provenance").sha256
    before = {p.name: sha256(p) for p in raw.iterdir()}
    Path("dvc.yaml").unlink()
    dvc("init", "--no-scm", "--quiet", check=True)
    dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"), check=True)
    dvc("add", "--quiet", str(raw), check=True)
    dvc("push", check=True)
    shutil.rmtree(raw)
    shutil.rmtree(".dvc/cache")
    dvc("pull", check=True)
    assert {p.name: sha256(p) for p in raw.iterdir()} == before

"""DVC links to its cache instead of copying: what it links is read-only, and nothing of ours may become so."""

import os
import shutil

import pytest
from conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.deep]
# Root may write to any file; without these rights it is as any other user.
BOUND = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner")


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_the_pipeline_runs_twice_on_a_cache_of_links(kind: str, split_project: Project) -> None:
    project = split_project
    project.python("-m", "dvc", "config", "--local", "cache.type", kind)
    bound = BOUND if os.geteuid() == 0 and shutil.which("setpriv") else ()
    for seed in (1, 2):
        words = ("pipeline", f"seed={seed}", "trainer.max_epochs=2")
        done = project.run(*bound, project.env["VENV"] + "/bin/python", "-m", "my_model", *words, check=False)
        assert done.returncode in (0, 3, 4), done.stderr[-3000:]  # the gate's own answers
        assert "denied" not in done.stderr and (project.path / "reports/promotion.json").is_file()
        evaluated = project.run(*bound, project.env["VENV"] + "/bin/python", "-m", "my_model", "evaluate", check=False)
        assert evaluated.returncode == 0, evaluated.stderr[-3000:]
    linked = [path for path in (project.path / "artifacts").rglob("*") if path.is_file()]
    assert any(path.is_symlink() or path.stat().st_nlink > 1 for path in linked)
    copies = [path for path in (project.path / "mlruns").rglob("*") if path.is_file()]
    assert copies and all(path.stat().st_mode & 0o200 for path in copies)

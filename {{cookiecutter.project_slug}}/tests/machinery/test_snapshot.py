import contextlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faults import drop_a_row, from_file, version
from harness import NONE, ROOT, Project, dvc, module

ingest = module("data.ingest")


def steps_of_a_swap(monkeypatch: pytest.MonkeyPatch, killed_at: int) -> list[str]:
    """Ends the process, as it were, at a step that touches the disk, before or after it is done;
    lists the steps.
    """
    done: list[str] = []

    def patch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def step(*arguments: Any, **options: Any) -> Any:
            done.append(f"before {name}")
            if len(done) == killed_at:
                raise KeyboardInterrupt
            result = real(*arguments, **options)
            done.append(f"after {name}")
            if len(done) == killed_at:
                raise KeyboardInterrupt
            return result

        monkeypatch.setattr(owner, name, step)

    patch(pd.DataFrame, "to_parquet")
    patch(Path, "replace")
    return done


@pytest.mark.row("D2")
def test_killed_at_any_step_the_snapshot_is_the_old_or_the_new_one_or_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = from_file(project)
    seen, number, finished = set(), 0, False
    project.run("ingest")
    while not finished:
        number += 1
        old = len(ingest.read(project.settings()))
        drop_a_row(path)
        with monkeypatch.context() as patched:
            steps_of_a_swap(patched, number)
            with contextlib.suppress(KeyboardInterrupt):
                finished = ingest.run(project.settings(), NONE) == 0
        try:
            rows = len(ingest.read(project.settings()))
            seen.add({old: "old", len(pd.read_parquet(path)): "new"}[rows])
        except ValueError as error:
            assert "run `make refresh`" in str(error)
            seen.add("refused")
        project.run("ingest")  # a run after a kill is like any other
        assert len(ingest.read(project.settings())) == len(pd.read_parquet(path))
    assert {"old", "new"} <= seen and number > 8


@pytest.mark.row("D2", "D3")
@pytest.mark.slow
def test_through_dvc_new_data_flow_on_equal_data_do_not_and_a_failure_changes_nothing(
    project: Project,
) -> None:
    path = from_file(project)
    (project.folder / "src").symlink_to(ROOT / "src")
    assert dvc("init", "--quiet", "--no-scm").returncode == 0
    first = dvc("repro", "validate")
    assert first.returncode == 0, first.stderr
    before = version(project)
    again = dvc("repro", "--force", "--single-item", "ingest")
    assert again.returncode == 0 and "nothing new" in again.stderr and version(project) == before
    assert "Running stage" not in dvc("repro", "validate").stdout
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    failed = dvc("repro", "--force", "ingest")
    assert failed.returncode and "data/raw keeps the last good snapshot" in failed.stderr
    assert version(project) == before
    path.write_bytes(content)
    drop_a_row(path)
    assert (
        dvc("repro", "--force", "--single-item", "ingest").returncode == 0
        and version(project) != before
    )
    assert "Running stage 'validate'" in dvc("repro", "validate").stdout

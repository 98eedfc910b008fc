"""A git worktree in which stages run on the code of one commit, for `routine` and `reproduce`. It
shares DVC's cache with this checkout, of which nothing else changes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from .provenance import copy_content, git
from .settings import Settings
from .store import SQLITE, local_uri

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def checkout(
    settings: Settings, job: str, commit: str = "HEAD", keep: bool = False
) -> Iterator["Worktree"]:
    """A worktree without a branch in .state/<job>, removed at the end; what a killed process left
    there is removed first. Raises ValueError where there is no commit.
    """
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        raise ValueError(
            "there is no commit yet: `make setup` makes the git repository, then commit the project"
        )
    main = Path.cwd()
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = main / settings.paths.state / job
    _remove(folder)
    git("worktree", "add", "--detach", "--quiet", str(folder / time), commit)
    project = folder / time / git("rev-parse", "--show-prefix")
    tree = Worktree(settings, main, project, job, time)
    try:
        share_cache(tree)
        yield tree
    finally:
        if not keep:
            _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    git("worktree", "prune")


@dataclass
class Worktree:
    """`main` is the checkout that it serves, `project` the same project in the worktree; both are
    absolute. `branch` holds what the routine committed.
    """

    settings: Settings
    main: Path
    project: Path
    job: str
    time: str
    branch: str | None = None

    def call(self, module: str, *arguments: str, accepted: tuple[int, ...] = (0,)) -> int:
        """Exit code of a Python module, run on the worktree's own sources, with its output in
        logs/<job>-<time>.txt. Raises ValueError.
        """
        output = self.main / self.settings.paths.logs / f"{self.job}-{self.time}.txt"
        output.parent.mkdir(exist_ok=True)
        environment = dict(os.environ)
        folders = {"PYTHONPATH": self.project / "src", "PATH": Path(sys.executable).parent}
        for name, folder in folders.items():  # dvc.yaml calls plain `python`
            environment[name] = f"{folder}{os.pathsep}{environment.get(name, '')}"
        command = [sys.executable, "-m", module, *arguments]
        with output.open("a", encoding="utf-8") as file:
            code = run_whole(command, cwd=self.project, env=environment, stdout=file, stderr=file)
        if code not in accepted:
            raise ValueError(
                f"`{module} {arguments[0]}` failed with exit code {code}: read {output}"
            )
        return code

    # What only the routine needs.

    @property
    def feedback(self) -> Path:
        return self.project / self.settings.paths.feedback

    def prepare(self) -> None:
        """Fetches what earlier data versions left, and brings the file that runs are recorded in
        where the stages, which read only params.yaml, look for it.
        """
        settings = self.settings
        if self.feedback.with_suffix(".dvc").is_file():
            self.call("dvc", "checkout", f"{settings.paths.feedback}.dvc")
        profile = f"{settings.paths.reports}/profile.json"  # new data is held beside it
        self.call("dvc", "checkout", profile, accepted=(0, 1, 255))
        file = local_uri(settings).removeprefix(SQLITE)
        if not file.startswith("/") and "://" not in file:
            (self.project / file).parent.mkdir(parents=True, exist_ok=True)
            (self.project / file).symlink_to(self.main / file)

    def shared_paths(self) -> list[str]:
        """Overrides with which a verb in the worktree acts on the main checkout's models."""
        paths = self.settings.paths
        shared = ("live", "audit", "state", "records")
        return [f"paths.{name}={self.main / getattr(paths, name)}" for name in shared]

    def add_feedback(self, rows: "pd.DataFrame") -> None:
        """One more file of feedback, in a folder that from now on DVC keeps."""
        folder = self.settings.paths.feedback.as_posix()
        git("rm", "-r", "--quiet", "--ignore-unmatch", folder, folder=self.project)
        self.feedback.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(self.feedback / f"{self.time}.parquet", index=False)
        self.call("dvc", "add", folder)

    def commit(self, message: str) -> None:
        """On a branch of its own, which outlives the worktree."""
        self.branch = f"routine/{self.time}"
        identity = ["-c", "user.name=routine", "-c", "user.email=routine@localhost"]
        options = [] if git("config", "user.email") else identity
        git("switch", "--quiet", "-c", self.branch, folder=self.project)
        git("add", "--all", folder=self.project)
        git(*options, "commit", "--quiet", "-m", message, folder=self.project)


def share_cache(tree: Worktree) -> None:
    """DVC looks for data in the main checkout's cache and in its remotes."""
    from dvc.repo import Repo

    local = tree.main / ".dvc/config.local"
    if local.is_file():
        copy_content(local, tree.project / ".dvc" / local.name)
    # Relative: DVC cannot write an umlaut into its configuration.
    folder = os.path.relpath(Repo(str(tree.main)).cache.local_cache_dir, tree.project)
    tree.call("dvc", "config", "--local", "cache.dir", folder)


def run_whole(command: list[str], **options: Any) -> int:
    """Exit code of a command; what it started ends too where this process is interrupted."""
    with subprocess.Popen(command, **options) as process:
        try:
            return process.wait()
        except BaseException:
            started = psutil.Process(process.pid).children(recursive=True)
            for one in [process, *started]:
                one.kill()
            raise

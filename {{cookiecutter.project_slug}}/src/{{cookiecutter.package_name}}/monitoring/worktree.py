"""A git worktree for the routine. It shares the DVC cache, the tracker, live/ and the audit log with this checkout."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..settings import Settings

if TYPE_CHECKING:
    import pandas as pd

KEPT_OUTPUTS = 20
HIDDEN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside git's hooks, where they would name this checkout


@contextmanager
def checkout(parent: Path, name: str) -> Iterator[Path]:
    """A checkout of HEAD without a branch, removed at the end; what a killed routine left is removed first."""
    shutil.rmtree(parent, ignore_errors=True)
    _git("worktree", "prune")
    folder = parent.resolve() / name
    _git("worktree", "add", "--detach", "--quiet", str(folder), "HEAD")
    try:
        yield folder
    finally:
        shutil.rmtree(parent, ignore_errors=True)
        _git("worktree", "prune")


@dataclass
class Worktree:
    """`main` is the checkout that it serves, `project` the same project in the worktree; both are absolute."""

    settings: Settings
    main: Path
    project: Path
    time: str
    branch: str | None = None

    @property
    def feedback(self) -> Path:
        return self.project / self.settings.paths.feedback

    def prepare(self) -> None:
        """Shares cache and tracker with the main checkout and fetches the feedback of earlier data versions."""
        for old in sorted((self.main / self.settings.paths.logs).glob("routine-*.txt"))[:-KEPT_OUTPUTS]:
            old.unlink()
        local = self.main / ".dvc" / "config.local"
        if local.is_file():
            shutil.copy(local, self.project / ".dvc" / "config.local")
        self.call("dvc", "config", "--local", "cache.dir", str(self._cache()))
        tracked = self.settings.paths.feedback.with_name(self.settings.paths.feedback.name + ".dvc")
        if (self.project / tracked).is_file():
            self.call("dvc", "checkout", tracked.as_posix())
        profile = self.settings.paths.reports / "profile.json"  # of the last valid data, beside which new data is held
        if (self.project / "dvc.lock").is_file():
            self.call("dvc", "checkout", profile.as_posix(), accepted=(0, 1, 255))

    def call(self, module: str, *arguments: str, accepted: tuple[int, ...] = (0,)) -> int:
        """Runs a Python module in the worktree on its own sources; output goes to logs/. Raises RuntimeError."""
        output = self.main / self.settings.paths.logs / f"routine-{self.time}.txt"
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8") as file:
            code = _wait([sys.executable, "-m", module, *arguments], self.project, self._environment(), file)
        if code not in accepted:
            raise RuntimeError(f"`{module} {arguments[0]}` failed with exit code {code}: read {output}")
        return code

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        paths = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.project / "src"), kept.get("PYTHONPATH")])),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]),
        }
        return kept | paths

    def _cache(self) -> Path:
        command = [sys.executable, "-m", "dvc", "cache", "dir"]
        found = subprocess.run(command, cwd=self.main, capture_output=True, text=True, check=False)
        if found.returncode:
            raise ValueError("this is no DVC project: run `make setup` first")
        return (self.main / found.stdout.strip()).resolve()

    def _tracker_file(self) -> Path | None:
        """The tracker's SQLite file relative to the project, where it is one."""
        uri = self.settings.tracking.uri
        path = Path(uri.removeprefix("sqlite:///"))
        return path if uri.startswith("sqlite:///") and not path.is_absolute() else None

    @contextmanager
    def shared_tracker(self) -> Iterator[None]:
        """The stages read only params.yaml, so a relative tracker file must lie where they look for it."""
        file = self._tracker_file()
        link = self.project / file if file else None
        if link:
            try:
                link.symlink_to(self.main / link.relative_to(self.project))
            except OSError:  # Windows without that right: promote then restores the run from reports/
                link = None
        try:
            yield
        finally:
            if link:
                link.unlink(missing_ok=True)

    def shared_paths(self) -> list[str]:
        file, paths = self._tracker_file(), self.settings.paths
        uri = f"sqlite:///{self.main / file}" if file else self.settings.tracking.uri
        shared = {"live": paths.live, "audit": paths.audit, "state": paths.state}
        return [f"tracking.uri={uri}", *[f"paths.{name}={self.main / path}" for name, path in shared.items()]]

    def add_feedback(self, rows: "pd.DataFrame") -> None:
        folder = self.settings.paths.feedback.as_posix()
        if _git("ls-files", folder, cwd=self.project):  # from now on DVC keeps this folder
            _git("rm", "-r", "--quiet", folder, cwd=self.project)
        self.feedback.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(self.feedback / f"{self.time}.parquet", index=False)
        self.call("dvc", "add", folder)

    def commit(self, message: str) -> None:
        known = _git("config", "--get", "user.email", cwd=self.project, check=False)
        identity = [] if known else ["-c", "user.name=routine", "-c", "user.email=routine@localhost"]
        branch = f"routine/{self.time}"
        _git("switch", "--quiet", "-c", branch, cwd=self.project)
        _git("add", "--all", cwd=self.project)
        _git(*identity, "commit", "--quiet", "-m", message, cwd=self.project)
        self.branch = branch


def _wait(command: list[str], folder: Path, environment: dict[str, str], output: TextIO) -> int:
    """Exit code of a command. If this process is interrupted meanwhile, all that the command started ends too."""
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
    ) as process:
        try:
            return process.wait()
        except BaseException:
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            raise


def repository() -> Path:
    """Where the project lies inside its git repository. Raises ValueError where there is none, or no commit yet."""
    if shutil.which("git") is None or _git("rev-parse", "--is-inside-work-tree", check=False) != "true":
        raise ValueError("a retraining works in a git worktree, and this is no git repository: run `make setup` first")
    if not _git("rev-parse", "--verify", "--quiet", "HEAD", check=False):
        raise ValueError("the git repository has no commit yet: commit the project first")
    return Path(_git("rev-parse", "--show-prefix"))


def _git(*arguments: str, cwd: Path | None = None, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()

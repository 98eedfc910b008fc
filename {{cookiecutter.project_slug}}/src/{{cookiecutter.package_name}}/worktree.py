"""A git worktree in which stages run on the code of one commit. It shares the DVC cache with this
checkout.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from .settings import Settings

KEPT_OUTPUTS = 20
HIDDEN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
)  # set inside git's hooks, where they would name this checkout


@contextmanager
def checkout(parent: Path, name: str, commit: str = "HEAD", keep: bool = False) -> Iterator[Path]:
    """A checkout without a branch, removed at the end; what a killed process left in `parent` is
    removed first.
    """
    shutil.rmtree(parent, ignore_errors=True)
    run_git("worktree", "prune")
    folder = parent.resolve() / name
    run_git("worktree", "add", "--detach", "--quiet", str(folder), commit)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(parent, ignore_errors=True)
            run_git("worktree", "prune")


@dataclass
class Worktree:
    """`main` is the checkout that it serves, `project` the same project in the worktree; both are
    absolute.

    What its commands print goes to logs/<job>-<time>.txt.
    """

    settings: Settings
    main: Path
    project: Path
    time: str
    job: str

    def share_cache(self) -> None:
        """DVC looks for data in the main checkout's cache and in its remotes."""
        for old in sorted((self.main / self.settings.paths.logs).glob(f"{self.job}-*.txt"))[
            :-KEPT_OUTPUTS
        ]:
            old.unlink()
        local = self.main / ".dvc" / "config.local"
        if local.is_file():
            shutil.copy(local, self.project / ".dvc" / "config.local")
        self.call("dvc", "config", "--local", "cache.dir", str(cache(self.main)))

    def call(self, module: str, *arguments: str, accepted: tuple[int, ...] = (0,)) -> int:
        """Runs a Python module in the worktree on its own sources; output goes to logs/. Raises
        RuntimeError.
        """
        output = self.main / self.settings.paths.logs / f"{self.job}-{self.time}.txt"
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a", encoding="utf-8") as file:
            code = _wait(
                [sys.executable, "-m", module, *arguments], self.project, self._environment(), file
            )
        if code not in accepted:
            raise RuntimeError(
                f"`{module} {arguments[0]}` failed with exit code {code}: read {output}"
            )
        return code

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        paths = {
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(self.project / "src"), kept.get("PYTHONPATH")])
            ),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]),
        }
        return kept | paths


def cache(project: Path) -> Path:
    """DVC's cache folder. Raises ValueError where the project does not use DVC."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    found = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ValueError("this is no DVC project: run `make setup` first")
    return (project / found.stdout.strip()).resolve()


def _wait(command: list[str], folder: Path, environment: dict[str, str], output: TextIO) -> int:
    """Exit code of a command. If this process is interrupted meanwhile, all that the command
    started ends too.
    """
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
    """Where the project lies inside its git repository. Raises ValueError where there is none, or
    no commit yet.
    """
    if (
        shutil.which("git") is None
        or run_git("rev-parse", "--is-inside-work-tree", check=False) != "true"
    ):
        raise ValueError(
            "this works in a git worktree, and this is no git repository: run `make setup` first"
        )
    if not run_git("rev-parse", "--verify", "--quiet", "HEAD", check=False):
        raise ValueError("the git repository has no commit yet: commit the project first")
    return Path(run_git("rev-parse", "--show-prefix"))


def run_git(*arguments: str, cwd: Path | None = None, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()

"""The routine's git worktree. It shares the DVC cache, the tracker, live/ and the audit log with
this checkout.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import worktree
from ..worktree import run_git

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Worktree(worktree.Worktree):
    """`branch` holds what the routine committed, once it has."""

    job: str = "routine"
    branch: str | None = None

    @property
    def feedback(self) -> Path:
        return self.project / self.settings.paths.feedback

    def prepare(self) -> None:
        """Shares cache and tracker with the main checkout and fetches the feedback of earlier data
        versions.
        """
        self.share_cache()
        tracked = self.settings.paths.feedback.with_name(self.settings.paths.feedback.name + ".dvc")
        if (self.project / tracked).is_file():
            self.call("dvc", "checkout", tracked.as_posix())
        profile = (
            self.settings.paths.reports / "profile.json"
        )  # of the last valid data, beside which new data is held
        if (self.project / "dvc.lock").is_file():
            self.call("dvc", "checkout", profile.as_posix(), accepted=(0, 1, 255))

    def _tracker_file(self) -> Path | None:
        """The tracker's SQLite file relative to the project, where it is one."""
        uri = self.settings.tracking.uri
        path = Path(uri.removeprefix("sqlite:///"))
        return path if uri.startswith("sqlite:///") and not path.is_absolute() else None

    @contextmanager
    def shared_tracker(self) -> Iterator[None]:
        """The stages read only params.yaml, so a relative tracker file must lie where they look for
        it.
        """
        file = self._tracker_file()
        link = self.project / file if file else None
        if link:
            try:
                link.symlink_to(self.main / link.relative_to(self.project))
            except (
                OSError
            ):  # Windows without that right: promote then restores the run from reports/
                link = None
        try:
            yield
        finally:
            if link:
                link.unlink(missing_ok=True)

    def shared_paths(self) -> list[str]:
        file, paths = self._tracker_file(), self.settings.paths
        uri = f"sqlite:///{self.main / file}" if file else self.settings.tracking.uri
        shared = {
            "live": paths.live,
            "audit": paths.audit,
            "state": paths.state,
            "records": paths.records,
        }
        return [
            f"tracking.uri={uri}",
            *[f"paths.{name}={self.main / path}" for name, path in shared.items()],
        ]

    def add_feedback(self, rows: "pd.DataFrame") -> None:
        folder = self.settings.paths.feedback.as_posix()
        if run_git("ls-files", folder, cwd=self.project):  # from now on DVC keeps this folder
            run_git("rm", "-r", "--quiet", folder, cwd=self.project)
        self.feedback.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(self.feedback / f"{self.time}.parquet", index=False)
        self.call("dvc", "add", folder)

    def commit(self, message: str) -> None:
        known = run_git("config", "--get", "user.email", cwd=self.project, check=False)
        identity = (
            [] if known else ["-c", "user.name=routine", "-c", "user.email=routine@localhost"]
        )
        branch = f"routine/{self.time}"
        run_git("switch", "--quiet", "-c", branch, cwd=self.project)
        run_git("add", "--all", cwd=self.project)
        run_git(*identity, "commit", "--quiet", "-m", message, cwd=self.project)
        self.branch = branch

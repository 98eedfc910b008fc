"""What went into a run beyond its parameters, so that `reproduce` can have it back: command, code,
data, machine.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ..provenance import git
from ..settings import Settings

if TYPE_CHECKING:
    from ..tracking import Run

PATCH = "uncommitted.diff"
# bytes of uncommitted work that a run records: more is data in the wrong place, not code
MAX_PATCH = 20_000_000


def record(run: "Run") -> None:
    """Command, machine, and all that is not committed."""
    changes, left = patch()
    run.tags({**command(), **hardware(), "code.left_out": ", ".join(left)[:2000] or "none"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PATCH
        path.write_bytes(changes or b"no uncommitted changes\n")
        run.artifacts([path], "code")


def command() -> dict[str, str]:
    """Machine, command line and Hydra's overrides, which `pipeline` leaves to the stages in
    OVERRIDES.
    """
    hydra, overrides = sys.modules.get("hydra.core.hydra_config"), os.environ.get("OVERRIDES", "")
    if hydra is not None and hydra.HydraConfig.initialized():
        overrides = " ".join(hydra.HydraConfig.get().overrides.task)
    return {"host": platform.node(), "command": " ".join(sys.argv), "overrides": overrides}


def hardware() -> dict[str, str]:
    """Processor, cores, memory and GPUs."""
    import psutil

    info = Path("/proc/cpuinfo")
    lines = (
        info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    )
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    torch = sys.modules.get("torch")
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch else []
    )
    return {
        "env.cpu": names[0] if names else platform.processor() or platform.machine(),
        "env.cores": str(os.cpu_count()),
        "env.memory_gb": f"{psutil.virtual_memory().total / 1e9:.0f}",
        "env.gpus": ", ".join(gpus) or "none",
    }


def dvc_hash(path: Path) -> str:
    """The hash under which DVC stores a file or a folder, from what is there now: dvc.lock may be
    older.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
    listed = json.dumps([{"md5": dvc_hash(p), "relpath": name} for name, p in files])
    return hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest() + ".dir"


def data(settings: Settings) -> dict[str, str]:
    """DVC's hash of every data folder: of those on disk as they are, of the others as dvc.lock has
    them.
    """
    lock, tags = Path("dvc.lock"), {}
    if lock.is_file():
        stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"].values()
        outs = [out for stage in stages for out in stage.get("outs", [])]
        tags = {f"dvc.{out['path']}": out["md5"] for out in outs if out["path"].startswith("data/")}
    present = [p for p in (settings.paths.raw, settings.paths.splits) if p.is_dir()]
    return {**tags, **{f"dvc.{p.as_posix()}": dvc_hash(p) for p in present}}


def patch() -> tuple[bytes, list[str]]:
    """All that differs from HEAD in this folder, new files included, as `git apply` takes it; and
    what was left out.

    It is made in an index and an object store of its own: the repository is not touched.
    """
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        return b"", []
    with tempfile.TemporaryDirectory() as folder:
        objects = git("rev-parse", "--path-format=absolute", "--git-path", "objects")
        own = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_LITERAL_PATHSPECS": "1",
        }
        env = {**os.environ, **own, "GIT_ALTERNATE_OBJECT_DIRECTORIES": objects}

        def call(*arguments: str, given: bytes = b"") -> bytes:
            return subprocess.run(
                ["git", *arguments], env=env, input=given, capture_output=True, check=True
            ).stdout

        call("read-tree", "HEAD")
        call("add", "--update", ".")
        listed = call("ls-files", "--others", "--exclude-standard", "-z").split(b"\0")[:-1]
        listed.sort(key=lambda name: os.lstat(name).st_size)
        sizes = list(accumulate(os.lstat(name).st_size for name in listed))
        taken = listed[: bisect_right(sizes, MAX_PATCH)]
        if taken:
            call("add", "--pathspec-from-file=-", "--pathspec-file-nul", given=b"\0".join(taken))
        plain = (
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
        )
        found = call("diff", "--binary", *plain, "--cached", "HEAD", "--", ".")
    if len(found) > 2 * MAX_PATCH:
        return b"", [f"all of it, {len(found) / 1e6:.0f} MB"]
    return found, [os.fsdecode(name) for name in listed[len(taken) :]]

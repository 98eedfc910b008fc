"""What made an artefact: hashes of code, data and configuration, and the environment, so that a
proof can go stale.
"""

import getpass
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml

from . import logs
from .settings import Settings

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parents[1]  # of the project
HERE = Path()
UNKNOWN = "unknown"
MAX_NEW = 1_000_000  # bytes of an uncommitted new file: a larger one is data in the wrong place


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_hash(*paths: Path) -> str:
    """SHA-256 over the source files below these paths."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".html", ".j2", ".yaml"):
                digest.update(f"{file.relative_to(ROOT).as_posix()} {sha256(file)}\n".encode())
    return digest.hexdigest()


def stage_code(stage: str) -> str:
    """Hash of the source that dvc.yaml lists for a stage; of the whole package for other verbs."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    listed = [ROOT / path for path in stages.get(stage, {"deps": []})["deps"] if path[:4] == "src/"]
    return code_hash(*(listed or [PACKAGE]))


def source_code() -> str:
    """Hash of what the test suite proves: the package, its configuration and its tests."""
    return code_hash(PACKAGE, ROOT / "configs", ROOT / "tests")


def made_by_pipeline(path: Path) -> Path:
    """The path, where it exists. Raises ValueError that names the command which makes it."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `make pipeline` first")
    return path


def data_version(settings: Settings) -> str:
    """SHA-256 of the raw snapshot's manifest, which itself holds the SHA-256 of each data file."""
    return sha256(made_by_pipeline(settings.paths.raw / "manifest.json"))


def stamp(settings: Settings, stage: str, bundle: str | None = None) -> dict[str, Any]:
    """What a report carries to prove that it speaks of the current code, data and bundle."""
    code = stage_code(stage)
    data = data_version(settings)
    return {"stage": stage, "code": code, "data": data, "bundle": bundle}


def git(*arguments: str, folder: Path = HERE) -> str:
    """Output of a git command: empty where there is no repository, or nothing to answer. Raises
    ValueError with what git says, its remedy included, or OSError where there is no git.
    """
    place = folder.resolve()
    if not any((above / ".git").exists() for above in (place, *place.parents)):
        return ""
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    # A question that is answered by no, such as whether a commit is there, ends without words.
    problem = (done.stderr or done.stdout).split()
    if done.returncode and problem:
        raise ValueError(f"git fails in {place}: {' '.join(problem)}")
    return done.stdout.strip()


def head() -> str:
    """The commit that is checked out here: empty where there is none, "unknown" where git fails."""
    with suppress(OSError, ValueError):
        return git("rev-parse", "--verify", "--quiet", "HEAD")
    return UNKNOWN


def user() -> str:
    """Who works here: git's name for it, or the system's."""
    with suppress(OSError, KeyError, ValueError):  # a container's user may have no name
        return git("config", "user.name") or getpass.getuser()
    return UNKNOWN


def installed() -> str:
    """The installed version of every distribution, a line each."""
    lines = {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}
    return "\n".join(sorted(lines, key=str.lower))


def environment() -> dict[str, str]:
    """Python and machine."""
    lock = ROOT / "requirements.lock"
    info = Path("/proc/cpuinfo")
    names = re.findall("model name.*: (.+)", info.read_text("utf-8")) if info.is_file() else []
    cuda = sys.modules["torch"].cuda if "torch" in sys.modules else None
    count = cuda.device_count() if cuda else 0
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages_sha256": hashlib.sha256(installed().encode()).hexdigest(),
        "lock_sha256": sha256(lock) if lock.is_file() else "none",
        "processor": names[0] if names else platform.processor(),
        "cores": str(os.cpu_count()),
        "memory_gb": f"{psutil.virtual_memory().total / 1e9:.0f}",
        "gpus": f"{count} {cuda.get_device_name()}" if cuda and count else "none",
    }


def provenance_tags(settings: Settings) -> dict[str, str]:
    """Code and data of a run: commit, uncommitted changes or not, hashes and rows of the data."""
    from pyarrow.parquet import read_metadata

    splits = sorted(settings.paths.splits.glob("*.parquet"))
    commit = head()
    tags = {
        "code.commit": commit or "none",
        "code.dirty": commit if commit == UNKNOWN else str(bool(git("status", "--porcelain"))),
        "data.version": data_version(settings),
        # One hash over all splits: whether two runs were scored on the same rows.
        "data.splits": hashlib.sha256("".join(map(sha256, splits)).encode()).hexdigest(),
    }
    for file in splits:
        tags[f"data.rows.{file.stem}"] = str(read_metadata(file).num_rows)
    for folder in (settings.paths.raw, settings.paths.splits):
        tags[f"dvc.{folder.as_posix()}"] = dvc_hash(folder)
    return tags


def dvc_hash(folder: Path) -> str:
    """The hash under which DVC stores a folder as it is now."""
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    rows = []
    for name in sorted(files):
        with files[name].open("rb") as file:
            rows.append({"md5": hashlib.file_digest(file, "md5").hexdigest(), "relpath": name})
    return hashlib.md5(json.dumps(rows).encode(), usedforsecurity=False).hexdigest() + ".dir"


def uncommitted() -> tuple[bytes, list[str]]:
    """All that differs from HEAD here, new files included, as `git apply` takes it; and the new
    files above MAX_NEW bytes, which it leaves out. The repository is not touched.
    """
    try:
        if not git("rev-parse", "--verify", "--quiet", "HEAD"):
            return b"", []
    except (OSError, ValueError) as error:
        logs.get("git").warning("the record of this run names no commit: %s", error)
        return f"unknown: {error}\n".encode(), []
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "GIT_INDEX_FILE": f"{folder}/index", "GIT_LITERAL_PATHSPECS": "1"}

        def call(command: str, given: bytes = b"") -> bytes:
            words = ["git", *command.split()]
            return subprocess.run(
                words, env=env, input=given, capture_output=True, check=True
            ).stdout

        call("read-tree HEAD")
        new = call("ls-files --others --exclude-standard -z").split(b"\0")[:-1]
        large = [name for name in new if os.lstat(name).st_size > MAX_NEW]
        if small := b"\0".join(name for name in new if name not in large):
            call("add --intent-to-add --pathspec-from-file=- --pathspec-file-nul", small)
        plain = "--no-ext-diff --no-textconv --no-color --src-prefix=a/ --dst-prefix=b/"
        return call(f"diff --binary {plain} HEAD -- ."), [os.fsdecode(name) for name in large]


def write_text(path: Path, text: str) -> None:
    """Writes beside the target and renames: a reader sees the old file or the new one, never half
    of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def copy_content(source: Path, target: Path) -> None:
    """A file's content, not its rights, whole or not at all: DVC may link to what is read-only."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.tmp")
    shutil.copyfile(source, draft)
    draft.replace(target)


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Content of a report. Raises ValueError that names the command which makes it."""
    return json.loads(made_by_pipeline(path).read_text(encoding="utf-8"))

"""What made an artefact: hashes of code, data and configuration, and the environment, so that a
proof can go stale.
"""

import getpass
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from .settings import Settings

PACKAGE = Path(__file__).parent
MAX_NEW = 1_000_000  # bytes of an uncommitted new file: a larger one is data in the wrong place
LOADING = ("data/datamodule.py", "data/stream.py", "data/snapshot.py", "task/features.py")
# The source files, beside settings.py, that a stage's result depends on; dvc.yaml lists the same (a
# test).
STAGE_CODE: dict[str, tuple[str, ...]] = {
    "ingest": (
        "data/ingest.py",
        "data/schema.py",
        "data/sources.py",
        "task/source.py",
        "task/schema.py",
        "task/features.py",
    ),
    "validate": (
        "data/validate.py",
        "pages.py",
        "page.html.j2",
        "data/checks.py",
        "data/ingest.py",
        "data/schema.py",
        "modeling/kinds",
        "task/schema.py",
        "task/features.py",
    ),
    "split": (
        "data/split.py",
        "data/card.py",
        "data/checks.py",
        "data/ingest.py",
        "data/schema.py",
        "modeling/kinds",
        "task/schema.py",
        "task/features.py",
    ),
    "train": (
        *LOADING,
        "task/augment.py",
        "types.py",
        "modeling",
        "task/networks.py",
        "task/baselines.py",
        "training/train.py",
        "training/fit.py",
        "training/checkpoints.py",
        "training/throughput.py",
        "training/health.py",
        "training/signs.py",
        "training/panel.py",
        "task/view.py",
        "training/loggers.py",
    ),
    "evaluate": (
        *LOADING,
        "types.py",
        "modeling",
        "task/networks.py",
        "task/baselines.py",
        "evaluation",
        "task/behaviour.py",
        "pages.py",
        "page.html.j2",
    ),
    "package": (
        *LOADING,
        "types.py",
        "modeling",
        "task/networks.py",
        "task/baselines.py",
        "packaging/package.py",
        "packaging/export.py",
        "packaging/bundle.py",
    ),
    "promote": ("packaging", "experiments"),
    "serve": ("serving", "packaging/bundle.py", "types.py", "modeling/kinds", "task/features.py"),
    "monitor": ("monitoring", "serving/store.py"),
}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stage_code(stage: str) -> str:
    """SHA-256 over the source files that this stage depends on."""
    digest = hashlib.sha256()
    for name in ("settings.py", *STAGE_CODE[stage]):
        path = PACKAGE / name
        for file in (
            sorted(p for p in path.rglob("*") if p.suffix in (".py", ".html", ".j2"))
            if path.is_dir()
            else [path]
        ):
            digest.update(
                file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0"
            )
    return digest.hexdigest()


def source_code() -> str:
    """SHA-256 over the whole package, its configuration and its tests, for what the test suite
    proves.
    """
    digest = hashlib.sha256()
    folders = (PACKAGE, Path("configs"), Path("tests"))
    for file in sorted(
        p
        for folder in folders
        for p in folder.rglob("*")
        if p.suffix in (".py", ".html", ".j2", ".yaml")
    ):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def data_version(settings: Settings) -> str:
    """SHA-256 of the raw snapshot's manifest, which itself holds the SHA-256 of each data file."""
    manifest = settings.paths.raw / "manifest.json"
    if not manifest.is_file():
        raise ValueError(f"no data snapshot in {settings.paths.raw}: run `make pipeline` first")
    return sha256(manifest)


def stamp(settings: Settings, stage: str, bundle: str | None = None) -> dict[str, Any]:
    """What a report carries to prove that it speaks of the current code, data and bundle."""
    return {
        "stage": stage,
        "code": stage_code(stage),
        "data": data_version(settings),
        "bundle": bundle,
    }


def git(*arguments: str) -> str:
    """Output of a git command, empty where there is no repository or no git."""
    try:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False
        ).stdout.strip()
    except FileNotFoundError:
        return ""


def user() -> str:
    """Who works here: git's name for it, or the system's."""
    with suppress(OSError, KeyError):  # a container's user may have no name
        return git("config", "user.name") or getpass.getuser()
    return "unknown"


def environment() -> dict[str, str]:
    """Python, machine and the installed version of every distribution."""
    packages = sorted(
        {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}, key=str.lower
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **_hardware(),
        "packages": "\n".join(packages),
        "packages_sha256": hashlib.sha256("\n".join(packages).encode()).hexdigest(),
    }


def _hardware() -> dict[str, str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    cuda = sys.modules["torch"].cuda if "torch" in sys.modules else None
    gpus = cuda.device_count() if cuda else 0
    return {
        "processor": [*names, platform.processor()][0],
        "cores": str(os.cpu_count()),
        "memory_gb": f"{psutil.virtual_memory().total / 1e9:.0f}",
        "gpus": f"{gpus} {cuda.get_device_name()}" if cuda and gpus else "none",
    }


def provenance_tags(settings: Settings) -> dict[str, str]:
    """Code and data of a run: commit, uncommitted changes or not, hashes and rows of the data."""
    from pyarrow.parquet import read_metadata

    splits = sorted(settings.paths.splits.glob("*.parquet"))
    # One hash over all splits: whether two runs were scored on the same rows.
    digest = hashlib.sha256("".join(map(sha256, splits)).encode()).hexdigest()
    return {
        "code.commit": git("rev-parse", "--verify", "--quiet", "HEAD") or "none",
        "code.dirty": str(bool(git("status", "--porcelain"))),
        "data.version": data_version(settings),
        "data.splits": digest,
        **{f"data.rows.{f.stem}": str(read_metadata(f).num_rows) for f in splits},
        **{f"dvc.{p.as_posix()}": dvc_hash(p) for p in (settings.paths.raw, settings.paths.splits)},
    }


def dvc_hash(path: Path) -> str:
    """The hash under which DVC stores a file or a folder as it is now."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
    listed = json.dumps([{"md5": dvc_hash(p), "relpath": name} for name, p in files])
    return hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest() + ".dir"


def uncommitted() -> tuple[bytes, list[str]]:
    """All that differs from HEAD here, new files included, as `git apply` takes it; and the new
    files above MAX_NEW bytes, which it leaves out. The repository is not touched.
    """
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        return b"", []
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


def write_json(path: Path, content: Any) -> None:
    """Writes beside the target and renames: a reader sees the old file or the new one, never half
    of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def read_json(path: Path) -> Any:
    """Content of a report. Raises ValueError that names the command which makes it."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `make pipeline` first")
    return json.loads(path.read_text(encoding="utf-8"))

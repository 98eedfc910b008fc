"""What made an artefact: hashes of code, data and configuration, and the environment, so that a
proof can go stale.
"""

import getpass
import hashlib
import json
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from .settings import Settings

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parents[1]  # of the project


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
    code, data = stage_code(stage), data_version(settings)
    return {"stage": stage, "code": code, "data": data, "bundle": bundle}


def git(*arguments: str) -> str:
    """Output of a git command, empty where there is no repository or no git."""
    with suppress(FileNotFoundError):
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def user() -> str:
    """Who works here: git's name for it, or the system's."""
    with suppress(OSError, KeyError):  # a container's user may have no name
        return git("config", "user.name") or getpass.getuser()
    return "unknown"


def environment() -> dict[str, str]:
    """Python, machine and the installed version of every distribution."""
    installed = {f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()}
    packages = "\n".join(sorted(installed, key=str.lower))
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "packages": packages,
        "packages_sha256": hashlib.sha256(packages.encode()).hexdigest(),
    }


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
    return json.loads(made_by_pipeline(path).read_text(encoding="utf-8"))

"""Composes configs/ into params.yaml, runs what changed, promotes and pulls: `pipeline
experiment=wide seed=8`.

The exit code is promote's: 0 promoted or nothing new, 3 refused, 4 cannot tell.
"""

import argparse
import difflib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from . import logs
from .params import PARAMS, load
from .provenance import git
from .settings import Settings, parse

COMPOSES = True
STATE = Path(".state")
COMPOSED = STATE / "composed"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep", action="store_true", help="run params.yaml as it is, without composing configs/"
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="read the source again: DVC cannot see that it changed",
    )


def compose(overrides: list[str], configs: Path = Path("configs")) -> str:
    """The composed, resolved configuration as YAML, byte for byte what `dvc exp run -S` writes."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str(configs.resolve()), version_base=None):
            config = hydra_compose("config", overrides=overrides)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(
            f"configs/ with {overrides} do not compose: {' '.join(str(error).split())}"
        ) from None
    return OmegaConf.to_yaml(config)


def _composed_at_head() -> str | None:
    """What the committed configs/ compose to; None outside a repository or before the first commit."""
    archive = subprocess.run(
        ["git", "archive", "HEAD", "configs"], capture_output=True, check=False
    )
    if archive.returncode:
        return None
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(folder)
        return compose([], Path(folder) / "configs")


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text  # broken by hand: like nothing else, so it counts as a change


def composed(overrides: list[str]) -> str:
    """SHA-256 of params.yaml and of what it was composed from: while it stays, composing again
    changes nothing.
    """
    digest = hashlib.sha256("\0".join(overrides).encode())
    for path in [PARAMS, *sorted(Path("configs").rglob("*.yaml"))]:
        digest.update(
            path.as_posix().encode() + b"\0" + path.read_bytes() if path.is_file() else b""
        )
    return digest.hexdigest()


def write_params(overrides: list[str]) -> None:
    """Writes params.yaml, unless that would silently undo an experiment which somebody applied
    there.

    A difference from configs/ that the edits in configs/ do not explain is an applied experiment: a
    committed one stays in force, an uncommitted one stops the pipeline until it is committed,
    dropped or named.
    """
    if COMPOSED.is_file() and COMPOSED.read_text(encoding="utf-8") == composed(overrides):
        return
    wanted, present = (
        compose(overrides),
        PARAMS.read_text(encoding="utf-8") if PARAMS.is_file() else "",
    )
    parse(yaml.safe_load(wanted))  # a wrong value is told before it is written
    if not present or yaml.safe_load(wanted) == _yaml(present):
        PARAMS.write_text(wanted, encoding="utf-8")
        COMPOSED.write_text(composed(overrides), encoding="utf-8")
        return
    lines = difflib.unified_diff(
        present.splitlines(True), wanted.splitlines(True), str(PARAMS), "configs/", n=1
    )
    difference, base = "".join(lines), _composed_at_head()
    committed = git("show", f"HEAD:./{PARAMS}") + "\n"
    if overrides:
        print(
            f"  {PARAMS} changes:\n{difference}", file=sys.stderr
        )  # also what an earlier experiment had chosen
    elif base is not None and _yaml(present) not in (_yaml(base), _yaml(committed)):
        print(difference, file=sys.stderr)
        raise ValueError(
            f"{PARAMS} holds an uncommitted experiment that composing would undo (difference above): commit it, "
            f"name it (`make pipeline EXPERIMENT=...`), or drop it with `git checkout {PARAMS}`"
        )
    elif base is not None and _yaml(present) == _yaml(committed) != _yaml(base):
        if wanted == base:
            print(f"  {PARAMS} holds a committed experiment: running it as it is", file=sys.stderr)
            return
        raise ValueError(
            f"configs/ changed, and {PARAMS} holds a committed experiment: name it with EXPERIMENT=..."
        )
    PARAMS.write_text(wanted, encoding="utf-8")


def repro(*options: str) -> None:
    """Runs the stages whose code, data or parameters changed. Raises ValueError when one fails."""
    # The stages call plain `python`: that must be this one, also where the environment is not
    # activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "repro", *options]
    with subprocess.Popen(command, env={**os.environ, "PATH": path}) as process:
        from .packaging import promote, pull  # noqa: F401  what comes next is imported while DVC looks at the files

        try:
            process.wait()
        except KeyboardInterrupt:  # DVC has it too: the stage's last words come before ours
            process.wait()
            raise
    if process.returncode:
        raise ValueError(
            "a stage failed: its own message is above; `make pipeline` goes on from there once it is mended"
        )


def next_commit() -> str | None:
    """The exact command that commits what the pipeline changed, None where there is nothing to
    commit.
    """
    if not git("rev-parse", "--verify", "--quiet", "HEAD"):
        return "git add --all && git commit -m 'The first model'"
    paths = ["configs", "params.yaml", "dvc.lock", "audit", "data"]
    changed = [p for p in paths if Path(p).exists() and git("status", "--porcelain", "--", p)]
    return f"git add {' '.join(changed)} && git commit -m 'Update the model'" if changed else None


def run(_: Settings | None, args: argparse.Namespace) -> int:
    """compose → dvc repro → promote → pull, by one process at a time."""
    lock = STATE / "pipeline.lock"
    lock.parent.mkdir(exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            return _run(args)
    except Timeout:
        raise ValueError("another pipeline runs in this folder: wait for it to end") from None


def _run(args: argparse.Namespace) -> int:
    with logs.stage("pipeline") as log:
        os.environ["OVERRIDES"] = " ".join(
            args.overrides
        )  # for the run: params.yaml has what came of them
        if not args.keep:
            write_params(args.overrides)
        settings = load()
        if args.refresh:
            repro("--force", "--single-item", "ingest")
        repro()
        shutil.rmtree(
            settings.paths.state / "training", ignore_errors=True
        )  # what an interrupted one had gone on from
        from .packaging import promote, pull

        code = 0
        if pull.is_live(settings):
            log.info("nothing new: live/ holds this bundle")
        else:
            code = promote.run(settings, argparse.Namespace(override=None))
            if code == 0 or (settings.paths.live / pull.CURRENT).exists():
                pull.run(settings, args)
        command = next_commit()
        if command:
            log.info("to keep this: %s", command)
    return code

"""Composes configs/ into params.yaml, runs what changed, promotes and pulls: `pipeline
experiment=wide seed=8`.

The exit code is promote's: 0 promoted or nothing new, 3 refused, 4 cannot tell.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import yaml
from filelock import FileLock, Timeout

from . import logs, params
from .data.changes import has_changed
from .params import PARAMS, compose
from .provenance import git, write_text
from .settings import Settings, parse
from .tracking import flatten

COMPOSES = True
STATE = Path(".state")
FEW = 8  # settings that are shown without being asked for
COMPOSED = STATE / "params.yaml"  # what configs/ composed to, without overrides, the last time


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep", action="store_true", help="run params.yaml as it is, without composing configs/"
    )
    parser.add_argument(
        "--refresh",
        action="store_true",
        help="read the source again, and look through DVC's cache: DVC cannot see what changed",
    )
    parser.add_argument(
        "--diff", action="store_true", help="list each setting that differs from params.yaml"
    )


def write_params(overrides: list[str], diff: bool = False) -> None:
    """Composes params.yaml and says what changes there. Raises ValueError where that would undo an
    experiment that is not committed: without overrides, what git sees as changed must have come
    from configs/ alone.
    """
    composed = compose(overrides)
    parse(yaml.safe_load(composed))  # a wrong value is told before it is written
    if not PARAMS.is_file() and git("ls-files", "--", str(PARAMS)):
        raise ValueError(f"{PARAMS} is gone: `git checkout {PARAMS}` brings the last one back")
    present = params.read() if PARAMS.is_file() else yaml.safe_load(composed)
    before = yaml.safe_load(COMPOSED.read_bytes()) if COMPOSED.is_file() else None
    if present not in (before, yaml.safe_load(composed)):
        old, new = flatten(present), flatten(yaml.safe_load(composed))
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        lines = [f"{key}: {old.get(key)} → {new.get(key)}" for key in keys]
        count = f"{len(keys)} settings changed (`pipeline --diff` shows them)"
        few = diff or len(keys) <= FEW
        print("\n".join(f"  {line}" for line in (lines if few else [count])), file=sys.stderr)
        if not overrides and git("status", "--porcelain", "-uno", "--", str(PARAMS)):
            raise ValueError(
                f"{PARAMS} holds an uncommitted experiment that composing would undo: name "
                f"it (`make pipeline EXPERIMENT=...`), or drop it with `git checkout {PARAMS}`"
            )
    write_text(PARAMS, composed)
    if not overrides:
        write_text(COMPOSED, composed)


def repro(overrides: list[str], *options: str) -> None:
    """Runs the stages whose code, data or parameters changed. Raises ValueError when one fails."""
    # The stages call plain `python`: that must be this one, also where the environment is not
    # activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", "repro", *options]
    with subprocess.Popen(command, env={**os.environ, "PATH": path}) as process:
        from .packaging import promote, pull  # noqa: F401  imported while DVC looks at the files

        try:
            process.wait()
        except KeyboardInterrupt:  # DVC has it too: the stage's last words come before ours
            process.wait()
            raise
    if process.returncode:
        again = f' OVERRIDES="{" ".join(overrides)}"' if overrides else ""
        raise ValueError(
            f"a stage failed, as said above. Go on, after a change of the source, with `make "
            f"refresh{again}`; of code or configuration, with `make pipeline{again}`"
        )


def check_links(settings: Settings) -> None:
    """Raises ValueError where DVC would refuse, after the work, to keep what was made."""
    paths = settings.paths
    made = (paths.raw, paths.splits, paths.model, paths.bundle, paths.reports)
    links = [part for path in made for part in (path, *path.parents) if part.is_symlink()]
    if links:
        raise ValueError(
            f"{links[0]} is a link, behind which DVC keeps nothing: make it a folder; `dvc cache "
            "dir --local PATH` moves what is large to another disk"
        )


def check_lock() -> None:
    """DVC's lock goes by the numbers of processes, and those of killed ones may still be there, or
    be others'. Raises ValueError where one of them is DVC at work.
    """
    lock = Path(".dvc/tmp/rwlock")
    files = [file for file in (lock, lock.with_name("lock")) if file.is_file()]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    for number in re.findall(r'(?:"pid":|^|})\s*(\d+)', text):
        with suppress(psutil.Error):
            holder = psutil.Process(int(number))
            command = " ".join(holder.cmdline())  # empty where it was killed and is not buried
            if "dvc" in command:
                raise ValueError(
                    f"`{command}` works here: wait for it to end, or end it by `kill {number}`"
                )
    lock.unlink(missing_ok=True)


def mend_cache() -> None:
    """Removes what is damaged in DVC's cache, and has DVC look at all outputs again: it trusts what
    it once wrote, would restore it for ever, and `dvc status` would be content.
    """
    from dvc.repo import Repo

    repo, damaged = Repo(), []
    objects = Path(repo.cache.local.path).glob("??/*")
    # Another project that shares the cache may be writing there, under other names.
    for file in [file for file in objects if re.fullmatch(r"[0-9a-f]{30}(\.dir)?", file.name)]:
        with file.open("rb") as content:
            hash = hashlib.file_digest(content, "md5").hexdigest()
        if not file.name.startswith(hash[2:]):
            damaged.append(file)
            file.unlink()
    if damaged:
        logs.get("pipeline").warning("removed %d damaged objects from DVC's cache", len(damaged))
        for output in repo.index.outs:
            for path in [Path(str(output)), *Path(str(output)).rglob("*")]:
                if path.exists():
                    os.utime(path)


def next_commit() -> str | None:
    """The exact command that commits what the pipeline changed, None where there is nothing to
    commit.
    """
    try:
        changed = git("status", "--porcelain", "--", ".")
        message = (
            "Update the model" if git("rev-parse", "-q", "--verify", "HEAD") else "The first model"
        )
    except (OSError, ValueError):  # the record of the run has said so
        return None
    return f"git add --all . && git commit -m '{message}'" if changed else None


def run(_: Settings | None, args: argparse.Namespace) -> int:
    """compose → dvc repro → promote → pull, by one process at a time."""
    STATE.mkdir(exist_ok=True)
    try:
        with FileLock(STATE / "pipeline.lock", timeout=0), logs.stage("pipeline") as log:
            code = run_alone(args)
            command = next_commit() if code == 0 else None
            if command:
                log.info("to keep this: %s", command)
            return code
    except Timeout:
        raise ValueError("another pipeline runs in this folder: wait for it to end") from None


def run_alone(args: argparse.Namespace) -> int:
    os.environ["OVERRIDES"] = " ".join(args.overrides)  # for the run's record
    if not args.keep:
        write_params(args.overrides, args.diff)
    settings = params.load()
    check_links(settings)
    check_lock()
    if args.refresh:
        mend_cache()
        repro(args.overrides, "--force", "--single-item", "ingest")
    elif has_changed(settings):
        words = "%s changed since it was read: `make refresh` reads it again"
        logs.get("pipeline").warning(words, settings.data.source["path"])
    repro(args.overrides)
    # What an interrupted training had gone on from.
    shutil.rmtree(settings.paths.state / "training", ignore_errors=True)
    from .packaging import promote, pull

    if pull.is_live(settings):
        logs.get("pipeline").info("nothing new: live/ holds this bundle")
        return 0
    code = promote.run(settings, argparse.Namespace(override=None))
    if code == 0 or (settings.paths.live / pull.CURRENT).exists():
        pull.run(settings, args)
    return code

"""Brings a project of version 0.1.0 over to this template: `make upgrade PROJECT=path`, in a clean git repository.

What the project's owner changed is merged into the files as they are now, also where these have moved: base is the
project as 0.1.0 generated it. Nothing is committed: look at `git diff`, run `make test`, commit. Exit code 3 where an
edit and the new version touch the same lines: those files hold both, between the usual marks.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from io import BytesIO
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
VERSION_BEFORE = "6d3d2ad4d18ff4f890529ab6bb9b23d3f5e6c563"  # of this repository
# What an owner edits and where it lies now, below src/<package>/. Two files became one in baselines.py.
MOVED = {
    "data/source.py": "task/source.py",
    "data/schema.py": "task/schema.py",
    "data/features.py": "task/features.py",
    "data/augment.py": "task/augment.py",
    "modeling/networks.py": "task/networks.py",
    "modeling/classical.py": "task/baselines.py",
    "modeling/heuristic.py": "task/baselines.py",
    "evaluation/behaviour.py": "task/behaviour.py",
    "evaluation/show.py": "task/show.py",
    "serving/page.html": "task/page.html",
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git {arguments[0]} failed in {folder}: {done.stderr.strip()}")
    return done.stdout


def answers(project: Path) -> dict[str, str]:
    """What the project was generated with, out of its own files."""
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    package = next(path.parent.name for path in (project / "src").glob("*/settings.py"))
    config = (project / "configs" / "config.yaml").read_text(encoding="utf-8")
    name = yaml.safe_load(config)["project"]["name"]
    licence = (project / "LICENSE").read_text(encoding="utf-8")
    kinds = {"Apache License": "Apache-2.0", "BSD 3-Clause": "BSD-3-Clause", "MIT License": "MIT"}
    return {
        "project_name": name,
        "project_slug": settings["project"]["name"],
        "package_name": package,
        "author": settings["project"]["authors"][0]["name"],
        "license": next((value for key, value in kinds.items() if key in licence[:400]), "Proprietary"),
        **settings["tool"]["project"],
        "ci": next(
            (c for c, f in {"github": ".github", "gitlab": ".gitlab-ci.yml"}.items() if (project / f).exists()), "none"
        ),
    }


def bake(template: Path, folder: Path, given: dict[str, str]) -> Path:
    words = [f"{key}={value}" for key, value in given.items()]
    options = ["--no-input", "--default-config", "--output-dir", str(folder), str(template)]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cookiecutter", *options, *words], capture_output=True, text=True, check=False, env=env
    )
    if done.returncode:
        raise ValueError(f"the project cannot be generated from its own answers: {done.stderr.strip()}")
    return folder / given["project_slug"]


def version_before(folder: Path) -> Path:
    """The template as it was, out of this repository's history."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", VERSION_BEFORE], capture_output=True, check=False)
    if archive.returncode:
        raise ValueError(f"this checkout of the template lacks commit {VERSION_BEFORE}: fetch its whole history")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def files(folder: Path) -> set[str]:
    hidden = {".git", ".venv", "__pycache__"}
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {name.as_posix() for name in names if not hidden & set(name.parts)}


def plain(path: Path) -> str:
    """A file's text, Python at the new width: a line that was only wrapped is no difference."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--isolated", "--line-length", "100", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else text


def renamed(text: str) -> str:
    """An owner's own file with the new names of the modules that it imports or names as `_target_`."""
    for old, new in MOVED.items():
        if old.endswith(".py"):
            name, other = (path.removesuffix(".py").replace("/", ".") for path in (old, new))
            pattern = rf"^(\s*(?:from|import|.*_target_:).*?\b){re.escape(name)}\b"
            text = re.sub(pattern, rf"\g<1>{other}", text, flags=re.MULTILINE)
    return text


def merge(new: str, base: str, edited: str) -> tuple[str, bool]:
    """The new version with the edits, and whether they touch the same lines."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("new", "base", "edited")]
        for path, text in zip(paths, (new, base, edited), strict=True):
            path.write_text(text, encoding="utf-8")
        labels = ["-L", "the new version", "-L", "version 0.1.0", "-L", "your edit"]
        done = subprocess.run(
            ["git", "merge-file", "-p", *labels, *map(str, paths)], capture_output=True, text=True, check=False
        )
    return done.stdout, done.returncode != 0


def into_section(config: str, name: str, base: str, edited: str) -> tuple[str, list[str]]:
    """config.yaml with what was changed in the file of a group that is a section now; and what it has no place for."""
    group, left = Path(name).parts[1], []
    before, after = (yaml.safe_load(text) or {} for text in (base, edited))
    for key, value in after.items():
        if before.get(key) == value:
            continue
        pattern = re.compile(rf"(^{group}:\n(?:[ #].*\n|\n)*?  {re.escape(key)}:)[^\n#]*", re.MULTILINE)
        text = (
            yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
            .strip()
            .removesuffix("\n...")
        )
        found = pattern.search(config)
        if found:
            config = f"{config[: found.start()]}{found.group(1)} {text}{config[found.end() :]}"
        left += [] if found else [f"{group}.{key}: {text}"]
    return config, left


def upgrade(project: Path) -> int:
    if git(project, "status", "--porcelain"):
        raise ValueError(f"{project} has uncommitted changes: commit them first, so that nothing can be lost")
    given = answers(project)
    with tempfile.TemporaryDirectory() as folder:
        old = version_before(Path(folder, "template"))
        base, new = bake(old, Path(folder, "base"), given), bake(ROOT, Path(folder, "new"), given)
        return bring_over(project, base, new, given["package_name"])


def bring_over(project: Path, base: Path, new: Path, package: str) -> int:
    tracked = set(git(project, "ls-files").splitlines())
    moved = {f"src/{package}/{old}": f"src/{package}/{now}" for old, now in MOVED.items()}
    was, now = files(base), files(new)
    edited = sorted(n for n in tracked & was if plain(project / n) != plain(base / n))
    texts = {name: plain(new / name) for name in now if name != "params.yaml"}
    conflicts, lost = [], []
    for name in edited:
        target = moved.get(name, name)
        mine, theirs = plain(base / name), plain(project / name)
        if name in ("params.yaml", "dvc.lock"):  # composed anew
            continue
        if target in texts:
            texts[target], clash = merge(texts[target], mine, theirs)
            conflicts += [target] if clash else []
        elif Path(name).parts[0] == "configs" and Path(name).stem == "default":
            texts["configs/config.yaml"], left = into_section(texts["configs/config.yaml"], name, mine, theirs)
            lost += [f"{name}: set {key} in configs/" for key in left]
        else:
            lost.append(f"{name} is no longer there, and was edited: `git show HEAD:{name}`")
    for name in was & tracked - now:
        (project / name).unlink()
    for name in tracked - was - now:
        if Path(name).suffix in (".py", ".yaml"):
            text = (project / name).read_text(encoding="utf-8")
            (project / name).write_text(renamed(text), encoding="utf-8")
    for name, text in texts.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    (project / "params.yaml").write_bytes((new / "params.yaml").read_bytes())
    cruft = project / ".cruft.json"
    if cruft.is_file():
        record = {**json.loads(cruft.read_text(encoding="utf-8")), "commit": git(ROOT, "rev-parse", "HEAD").strip()}
        cruft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"{len(edited)} edited files were brought over; look at `git diff`, then run `make pipeline` and `make test`")
    for line in [
        *(f"conflict: {name} holds both versions" for name in conflicts),
        *(f"by hand: {line}" for line in lost),
    ]:
        print(line)
    return 3 if conflicts or lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, help="the generated project's root folder")
    try:
        sys.exit(upgrade(parser.parse_args().project.resolve()))
    except (ValueError, OSError) as error:
        sys.exit(print(f"error: {error}", file=sys.stderr) or 2)

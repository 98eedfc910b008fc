"""Checks every answer before a file is written: one line on stderr per rule that is broken, and exit code 1."""

import json
import keyword
import os
import re
import sys
import unicodedata
from pathlib import Path

MAX = 40
# A package or distribution of one of these names would hide, or be taken for, one that the project needs.
TAKEN = """antlr4 captum cookiecutter dvc execnet fastapi filelock hatchling httpx hydra hydra_core iniconfig jinja2
lightning matplotlib mlflow mypy numpy omegaconf onnx onnxruntime onnxscript optuna packaging pandas pandera pil pillow
pip pluggy prometheus_client psutil pyarrow pydantic pytest pytorch pytorch_lightning pyyaml ray requests rich ruff
safetensors scikit_learn scipy setuptools skl2onnx sklearn sqlalchemy starlette torch torchmetrics torchvision tqdm
typing_extensions uv uvicorn wheel xdist yaml yamllint""".split()
FOLDERS = """artifacts audit configs data deploy docs licenses live logs outputs reports scripts src store tasks
tests""".split()
DEVICES = "aux con nul prn".split()  # Windows has no folders of these names
UNPRINTABLE = "Cc Cn Co Cs Zl Zp".split()  # control, unassigned, private, half a character, ends of line and paragraph
CODE = ("{" * 2, "{" + "%", "{" + "#", "# cc:", "${")  # would run as code, at an update or in Hydra


def text_errors(key: str, value: str) -> list[str]:
    """Rules for the answers that people read: any script and any punctuation, on one line."""
    rules = {
        "must not be empty": not value.strip(),
        f"must have at most {MAX} characters, and has {len(value)}": len(value) > MAX,
        "must be one line without control characters": any(unicodedata.category(c) in UNPRINTABLE for c in value),
        f"must not contain any of {' '.join(CODE)}": any(mark in value for mark in CODE),
        "must say a name": value.strip() == "???",  # Hydra's sign for a missing value
    }
    return [f"{key} {rule}" for rule, broken in rules.items() if broken]


def name_errors(key: str, value: str, pattern: str, letters: str) -> list[str]:
    """Rules for the answers that become names of folders, packages and services."""
    taken = value.replace("-", "_") in {*TAKEN, *FOLDERS, *DEVICES}
    rules = {
        f"must be {letters}, beginning with a letter, and is {value!r}": not re.fullmatch(pattern, value),
        f"must have at most {MAX} characters, and has {len(value)}": len(value) > MAX,
        f"must not be {value!r}, which the project needs under that name": taken,
    }
    return [f"{key} {rule}" for rule, broken in rules.items() if broken]


def errors(answers: dict[str, str]) -> list[str]:
    """One line per rule that an answer breaks."""
    slug, package = answers["project_slug"], answers["package_name"]
    lines = text_errors("project_name", answers["project_name"]) + text_errors("author", answers["author"])
    lines += name_errors("project_slug", slug, "[a-z](-?[a-z0-9])*", "lower-case letters, digits and single hyphens")
    lines += name_errors(
        "package_name", package, "[a-z](_?[a-z0-9])*", "lower-case letters, digits and single underscores"
    )
    if keyword.iskeyword(package) or keyword.issoftkeyword(package):
        lines.append(f"package_name must not be {package!r}, a keyword of Python")
    if package in sys.stdlib_module_names:
        lines.append(f"package_name must not be {package!r}, a module of Python's standard library")
    return lines


def remove_outer_folders(slug: str) -> None:
    """Cookiecutter removes the innermost folder that it has made; a slug such as a/b has made more."""
    inner = Path.cwd()
    outer = [inner.parents[i] for i in range(len(Path(slug).parts) - 1)]
    if not outer or ".." in slug or Path(slug).is_absolute():
        return
    os.chdir(inner.anchor)  # no folder can be removed while one works in it, on Windows
    for folder in [inner, *outer]:
        if any(folder.iterdir()):  # not ours alone
            break
        folder.rmdir()


if __name__ == "__main__":
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    found = errors(answers)
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    if found:
        remove_outer_folders(answers["project_slug"])
        sys.exit(1)

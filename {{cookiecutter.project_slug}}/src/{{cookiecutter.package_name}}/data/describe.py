"""Drafts the configuration of a data set from a look at it: `describe data/mine.csv --label left`.

It writes configs/data/<name>.yaml and configs/experiment/<name>.yaml, which are yours from then on,
and says what it was unsure of. What it looks for in files of this task is in data/look.py.
"""

import argparse
import re
from pathlib import Path

import yaml

from .. import logs, params
from ..settings import Settings, parse

COMPOSES = True


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="a file, a folder, an address, or a database's URL")
    parser.add_argument("--label", help="of a table: the column to predict")
    parser.add_argument("--time", help="of a table: the column whose newest rows are the test")
    parser.add_argument("--query", help="a SELECT, where the path is a database's URL")
    parser.add_argument("--name", help="of the data set; the file's name otherwise")
    parser.add_argument("--force", action="store_true", help="replace files that exist")


def is_usable(name: str) -> bool:
    """Whether a command line and YAML take a name for a text; `true` and `inf` are none."""
    plain = re.fullmatch(r"[A-Za-z]\w*", name, flags=re.A) is not None
    return plain and yaml.safe_load(name) == name and name.lower() not in ("inf", "nan")


def run(_: Settings | None, args: argparse.Namespace) -> int:
    """Exit code 0; raises ValueError for what cannot be read or would be overwritten."""
    if args.overrides:
        raise ValueError("describe takes one path, and no settings")
    file_name = re.sub(r"\W+", "_", Path(args.path).name.partition(".")[0], flags=re.A).strip("_")
    name = args.name or (file_name if is_usable(file_name) else f"data_{file_name}")
    if not is_usable(name):
        raise ValueError(f"--name {name!r}: a letter, then letters, numbers and underscores")
    files = {kind: Path("configs", kind, f"{name}.yaml") for kind in ("data", "experiment")}
    present = [str(file) for file in files.values() if file.exists()]
    if present and not args.force:
        raise ValueError(f"{' and '.join(present)} exist: --force replaces them, --name differs")
    from ..task.schema import columns
    from . import draft, look

    data = look.look(args)
    texts = {"data": draft.data_yaml(name, data), "experiment": draft.experiment_yaml(name, data)}
    before = {file: file.read_text(encoding="utf-8") for file in files.values() if file.exists()}
    try:
        for kind, file in files.items():
            file.write_text(texts[kind], encoding="utf-8")
        columns(parse(yaml.safe_load(params.compose([f"experiment={name}"]))).data)
    except Exception:
        for file in files.values():  # a draft that does not compose is of no use to anybody
            file.write_text(before[file], encoding="utf-8") if file in before else file.unlink()
        raise
    log = logs.get("describe")
    log.info("%d rows; wrote %s and %s", len(data.label), *files.values())
    for words in data.unsure:
        log.info("unsure: %s", words)
    log.info("look through %s, then run: make pipeline EXPERIMENT=%s", files["data"], name)
    return 0

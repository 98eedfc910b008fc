"""What the tracker's page of a run says at a glance: source, data set, name and description; and
names that every tracker takes.
"""

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .settings import Settings

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

MAX_NAME = 250  # of a parameter, metric or tag; bytes, as some stores make files of them
MAX_TITLE = 90  # characters: the outcome, which follows, must be seen in a list of runs
ROWS = "data.rows."  # begins tags


def clean(name: str) -> str:
    """A name that every tracker takes. Where it is another one it ends in a hash: two names may
    differ in just what is refused.
    """
    plain = re.fullmatch(r"[\w -][\w. -]*(/[\w. -]+)*", name)
    if plain and len(name.encode()) <= MAX_NAME and not {".", ".."} & {*name.split("/")}:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return re.sub(r"[^A-Za-z0-9_ -]", "_", name)[:100] + "-" + digest


def overrides() -> str:
    """Settings on the command line; `pipeline` leaves its own to the stages in OVERRIDES."""
    return os.environ.get("OVERRIDES") or " ".join(w for w in sys.argv[1:] if "=" in w)


def title(settings: Settings) -> str:
    """How a run differs from the configuration, which lists of runs have room for, network and
    data.
    """
    network = str(settings.model["_target_"]).rpartition(".")[2]
    words = [w for w in overrides().split() if not w.startswith(("-", "paths.", "tracking."))]
    changes = [re.sub(r"^[^=]*\.", "", word) for word in words]
    return " ".join([*changes, network, "on", settings.data.name])


def command() -> str:
    """What runs, as it is typed."""
    verb = sys.argv[1:] if sys.argv[0].endswith("__main__.py") else sys.argv  # Hydra's begins so
    return f"python -m {__package__} {shlex.join(verb)}"


def dataset(settings: Settings, tags: Mapping[str, str]) -> "DatasetInput":
    """The splits by DVC's hash of them, with the number of their rows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    folder = settings.paths.splits.as_posix()
    rows = {k.removeprefix(ROWS): int(v) for k, v in tags.items() if k.startswith(ROWS)}
    profile = json.dumps({"num_rows": sum(rows.values()), **rows})
    source = json.dumps({"uri": folder})
    digest = tags[f"dvc.{folder}"]
    data = Dataset(settings.data.name, digest, "local", source, profile=profile)
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])


def describe(tags: Mapping[str, str], outcome: str, details: str, again: str) -> tuple[str, str]:
    """Name and description of a run, from its tags: what was trained on what, what came of it, and
    how to have it again. Numbers in them are rounded; those of the metrics are not.
    """
    name = tags["title"]
    short = name if len(name) <= MAX_TITLE else f"{name[:MAX_TITLE]}…"
    about = [f"**{name}**"]
    if f"{ROWS}train" in tags:
        about.append(f"{tags[f'{ROWS}train']} training rows")
        changed = " and uncommitted changes" if tags["code.dirty"] == "True" else ""
        about.append(f"code of commit `{tags['code.commit'][:8]}`{changed}")
    text = f"{', '.join(about)}: {outcome}{details}."
    return f"{short}: {outcome}"[:250], f"{text} To have it again: `{again}`."

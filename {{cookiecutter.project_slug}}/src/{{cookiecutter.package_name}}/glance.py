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
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .settings import Settings

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, RunData

MAX_NAME = 250  # of a parameter, metric or tag; bytes, as some stores make files of them
ROWS = "data.rows.train"
CAN_REPRODUCE = find_spec(f"{__package__}.experiments.reproduce") is not None  # lean has none


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
    """How a run differs from the configuration, which comes first as lists of runs are narrow;
    network and data.
    """
    network = str(settings.model["_target_"]).rpartition(".")[2]
    changes = re.sub(r"\S*(paths|tracking)\.\S*|[^\s=]*\.(?=\w+=)", "", overrides())
    return " ".join([*changes.split(), network, "on", settings.data.name])


def source() -> dict[str, str]:
    """The command, as it is typed."""
    verb = sys.argv[1:] if sys.argv[0].endswith("__main__.py") else sys.argv  # Hydra's begins so
    command = f"python -m {__package__} {shlex.join(verb)}"
    return {"mlflow.source.name": command, "mlflow.source.type": "LOCAL"}


def dataset(settings: Settings, tags: Mapping[str, str]) -> "DatasetInput":
    """The splits by DVC's hash of them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    folder = settings.paths.splits.as_posix()
    place = json.dumps({"uri": folder})
    data = Dataset(settings.data.name, tags[f"dvc.{folder}"], "local", place)
    return DatasetInput(data, [InputTag("mlflow.data.context", "training")])


def outcome(metric: str, data: "RunData") -> str:
    """The best that is known of it: by test rows rather than by those that chose the model."""
    scores = [f"{part}{metric}" for part in ("test.", "held_out.", "recipe.test ", "best.", "val.")]
    numbers = [f"{name} {data.metrics[name]:.4f}" for name in scores if name in data.metrics]
    gate = f", gate {data.tags['stage.evaluate']}" if "stage.evaluate" in data.tags else ""
    return (numbers or [data.tags.get("state", "no result").lower()])[0].replace(".", " ", 1) + gate


def note(tags: Mapping[str, str], outcome: str) -> str:
    """What was trained on what, what came of it, and how to have it again. Numbers are rounded here
    and in the name, but not in the metrics.
    """
    about = f"**{tags['title']}**"
    if ROWS in tags:
        about += f", {tags[ROWS]} training rows, code of commit `{tags['code.commit'][:8]}`"
        about += " and uncommitted changes" * (tags.get("code.dirty") == "True")
    again = tags["mlflow.source.name"]
    if CAN_REPRODUCE and {"candidate", "env.python"} <= tags.keys():  # it recorded all inputs
        again = f"python -m {__package__} reproduce {tags['record']}"
    return f"{about}: {outcome}. To have it again: `{again}`."

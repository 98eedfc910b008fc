"""`compare --resamples` and `--seeds`: trains two configurations again and again, on the same
resamples or with the same seeds, and compares the runs.

A resample is a random 80/20 cut of the rows outside of the test split, which stays untouched: both
configurations learn from the 80 %, early stopping included, and are scored on the 20 %. Rows that
share the key of the split stay together.
"""

import argparse
import contextlib
import io
import tempfile
from pathlib import Path

import pandas as pd
import yaml
from sklearn.model_selection import GroupShuffleSplit

from .. import logs, tracking
from ..data import datamodule
from ..data.split import split_keys
from ..modeling import kinds
from ..modeling.baselines import flat
from ..modeling.candidates import Candidate, ClassicalCandidate, NetworkCandidate
from ..params import compose, load
from ..settings import METRICS, Settings, parse
from ..task.baselines import classical
from ..training.fit import fit_network
from ..types import Rule

HELD_OUT = 0.2  # share of the rows that a resample is scored on
POOL = ("train", "val", "calibration")


def train_both(args: argparse.Namespace) -> list[list[str]]:
    """Trains, in one run with a child for every training; the children's ids, of a and of b."""
    num = args.resamples or args.seeds
    if num < 2 or args.a is None or args.b is None:
        raise ValueError(
            'say what to train, and at least twice: compare --seeds 10 --a "model.width=64" --b ""'
        )
    words = {"a": " ".join(args.a).split(), "b": " ".join(args.b).split()}
    settings = {side: composed(args.overrides, overrides) for side, overrides in words.items()}
    first, names = settings["a"], METRICS[settings["a"].data.kind]
    if args.metric not in [None, *names]:
        raise ValueError(f"no metric {args.metric!r}: choose one of {', '.join(names)}")
    runs: dict[str, list[tracking.Run]] = {"a": [], "b": []}
    first.paths.state.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="compare-", dir=first.paths.state) as name,
        tracking.start(first, "compare", tags={"compare.trainings": 2 * num}) as parent,
    ):
        tracking.record_inputs(parent, first)
        for i in range(num):
            folder = Path(name, str(i))
            cut(first, folder / "splits", first.seed + (i if args.resamples else 0))
            for side, overrides in words.items():
                own = {k: folder / side / k for k in ("model", "reports", "state")}
                paths = first.paths.model_copy(update={**own, "splits": folder / "splits"})
                update = {"seed": first.seed + i, "paths": paths}
                candidate = "classical" if "classical" in overrides else "network"
                title = f"{side}: {' '.join(overrides)}"
                run = tracking.start(first, title, parent, {"candidate": candidate})
                train(settings[side].model_copy(update=update), candidate, run)
                runs[side].append(run)
            logs.get("compare").info("trained both sides, %d of %d", i + 1, num)
    return [[run.id for run in side] for side in runs.values()]


def composed(shared: list[str], words: list[str]) -> Settings:
    """Hydra overrides on top of configs/. Raises ValueError."""
    overrides = [*shared, *(word for word in words if word != "classical")]
    settings, present = parse(yaml.safe_load(compose(overrides))), load().data
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError("resamples train on one device: choose trainer=cpu or trainer=gpu")
    if (settings.data.name, settings.data.labels) != (present.name, present.labels):
        raise ValueError("both sides must learn the data of params.yaml: run `make pipeline` first")
    return settings


def cut(settings: Settings, folder: Path, seed: int) -> None:
    """Writes a resample as a folder of splits, the held-out part as its test. Early stopping gets
    the share that `val` has beside `train`.
    """
    parts = [pd.read_parquet(settings.paths.splits / f"{name}.parquet") for name in POOL]
    rows, split = pd.concat(parts, ignore_index=True), settings.data.split
    keys = split_keys(rows, settings.data)
    stopping = split.fractions["val"] / (split.fractions["train"] + split.fractions["val"])
    folder.mkdir(parents=True)
    for name, share in {"test": HELD_OUT, "val": stopping}.items():
        halves = GroupShuffleSplit(1, test_size=share, random_state=seed)
        rest, chosen = next(halves.split(rows, groups=keys[rows.index]))
        rows.iloc[chosen].to_parquet(folder / f"{name}.parquet", index=False)
        rows = rows.iloc[rest]
    rows.to_parquet(folder / "train.parquet", index=False)


def train(settings: Settings, candidate: str, run: tracking.Run) -> None:
    """Records every metric on the held-out rows of a model that was trained on the others."""
    kind, test = kinds.of(settings.data.kind), datamodule.load(settings, "test")
    model: Candidate
    with run:
        run.params(settings.model_dump(mode="json"))
        run.tags(tracking.provenance_tags(settings))
        if candidate == "classical":
            rows, estimator = (
                datamodule.load(settings, "train"),
                classical(settings.data.kind, settings.seed),
            )
            model = ClassicalCandidate(estimator.fit(flat(rows.inputs), rows.label))
        else:
            with contextlib.redirect_stderr(io.StringIO()):  # a line per epoch would bury results
                model = NetworkCandidate(fit_network(settings, run))
        answers = kind.decide(model.outputs(test.inputs).raw, Rule())
        run.metrics(kind.metrics(answers, test.label), "held_out.")

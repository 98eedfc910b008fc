"""`compare --resamples` and `--seeds`: trains two configurations again and again, on the same
resamples or with the same seeds, and compares the runs.

A resample is a random 80/20 cut of the rows outside of the test split, which stays untouched: both
configurations learn from the 80 %, early stopping included, and are scored on the 20 %. Rows that
share the key of the split stay together.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from .. import logs, tracking
from ..data import datamodule
from ..data.split import split_keys
from ..modeling.baselines import flat
from ..modeling.candidates import Candidate, ClassicalCandidate, NetworkCandidate
from ..params import check_trainable
from ..settings import METRICS, Settings
from ..task.baselines import classical
from ..training import fit
from .study import configured

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
    settings = {}
    for side, overrides in words.items():
        overrides = [*args.overrides, *(word for word in overrides if word != "classical")]
        settings[side] = configured(overrides)
        check_trainable(settings[side])
    first = settings["a"]
    names = METRICS[settings["a"].data.kind]
    if args.metric not in [None, *names]:
        raise ValueError(f"no metric {args.metric!r}: choose one of {', '.join(names)}")
    ids: dict[str, list[str]] = {"a": [], "b": []}
    title = f"compare a ({' '.join(args.a)}) with b ({' '.join(args.b)}) on {first.data.name}"
    first.paths.state.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="compare-", dir=first.paths.state) as folder,
        tracking.start(first, title, tags={"compare.trainings": 2 * num}) as parent,
    ):
        tracking.record_inputs(parent, first)
        for i in range(num):
            splits = Path(folder, str(i), "splits")
            cut(first, splits, first.seed + (i if args.resamples else 0))
            for side, overrides in words.items():
                candidate = "classical" if "classical" in overrides else "network"
                child = f"{side} {i + 1} of {num}: {' '.join(overrides) or 'as configured'}"
                run = tracking.start(first, child, parent, {"candidate": candidate})
                one = settings[side].below(splits.with_name(side)).changed("paths", splits=splits)
                train(one.model_copy(update={"seed": first.seed + i}), candidate, run)
                ids[side].append(run.id)
            logs.get("compare").info("trained both sides, %d of %d", i + 1, num)
    return list(ids.values())


def cut(settings: Settings, folder: Path, seed: int) -> None:
    """Writes a resample as a folder of splits, the held-out part as its test. Early stopping gets
    the share that `val` has beside `train`.
    """
    parts = [pd.read_parquet(settings.paths.splits / f"{name}.parquet") for name in POOL]
    rows = pd.concat(parts, ignore_index=True)
    split = settings.data.split
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
    model: Candidate
    with run:
        run.params(settings.model_dump(mode="json"))
        tracking.record_data(run, settings)
        if candidate == "classical":
            rows = datamodule.load(settings, "train")
            estimator = classical(settings.data.kind, settings.seed)
            model = ClassicalCandidate(estimator.fit(flat(rows.inputs), rows.label))
        else:
            model = NetworkCandidate(fit.fit_network(settings, run))
        run.metrics(fit.score(settings, model, "test"), "held_out.")

"""Trains two configurations again and again, on the same resamples or with the same seeds, and
tests the difference.

A resample is a random 80/20 cut of the rows outside of the test split, which stays untouched: both
configurations learn from the 80 %, early stopping included, and are scored on the 20 %. Rows that
share the key of the split stay together.
"""

import contextlib
import io
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml

from .. import logs, tracking
from ..data.split import NEAR
from ..evaluation.comparison import Paired, resampled, seeds
from ..params import load
from ..settings import LOWER_IS_BETTER, Settings, parse
from ..task.schema import near_key

HELD_OUT = 0.2  # share of the rows that a resample is scored on
POOL = ("train", "val", "calibration")
Mode = Literal["resamples", "seeds"]
Scores = dict[str, list[float]]  # one per resample or seed, by side: a, b


@dataclass(frozen=True)
class Contender:
    """What is trained: the network of a configuration, or its classical model."""

    text: str
    settings: Settings
    classical: bool


def contender(shared: list[str], own: list[str]) -> Contender:
    """Hydra overrides on top of configs/; the word `classical` asks for the classical model. Raises
    ValueError.
    """
    from ..pipeline import compose

    words = [word for text in own for word in text.split()]
    settings = parse(yaml.safe_load(compose([*shared, *(w for w in words if w != "classical")])))
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError("resamples train on one device: choose trainer=cpu or trainer=gpu")
    return Contender(" ".join(words) or "as configured", settings, "classical" in words)


def check_alike(contenders: list[Contender]) -> None:
    """Raises ValueError where the two would not learn the same thing from the splits on disk."""
    asked = [
        (s.data.name, s.data.kind, s.data.labels)
        for s in (load(), *(c.settings for c in contenders))
    ]
    if any(one != asked[0] for one in asked):
        raise ValueError(
            "both must learn the data of params.yaml: compare other settings, or run `make pipeline` first"
        )


def cut(settings: Settings, rows: pd.DataFrame, seed: list[int], folder: Path) -> tuple[int, int]:
    """Writes one resample as a folder of splits, the held-out part as its test; numbers of rows to
    learn and held out.

    Of the rows to learn from, early stopping gets the share that `val` has beside `train` in the
    configuration.
    """
    data = settings.data
    keys = near_key(rows, data) if data.split.key == NEAR else rows[data.split.key]
    order, fractions = np.random.default_rng(seed).permutation(keys.unique()), data.split.fractions
    held = round(HELD_OUT * len(order))
    stop = held + round(
        (len(order) - held) * fractions["val"] / (fractions["train"] + fractions["val"])
    )
    folder.mkdir(parents=True)
    for name, chosen in {
        "test": order[:held],
        "val": order[held:stop],
        "train": order[stop:],
    }.items():
        rows[keys.isin(chosen)].to_parquet(folder / f"{name}.parquet", index=False)
    num_held = int(keys.isin(order[:held]).sum())
    return len(rows) - num_held, num_held


def evaluate_one(contender: Contender, settings: Settings, run: tracking.Run) -> dict[str, float]:
    """Trains on one resample and returns every metric on its held-out part."""
    from ..data import datamodule
    from ..modeling import kinds
    from ..modeling.baselines import flat
    from ..modeling.candidates import Candidate, ClassicalCandidate, NetworkCandidate
    from ..task.baselines import classical
    from ..training.fit import fit_network
    from ..types import Rule

    held, kind = datamodule.load(settings, "test"), settings.data.kind
    model: Candidate
    if contender.classical:
        train = datamodule.load(settings, "train")
        model = ClassicalCandidate(
            classical(kind, settings.seed).fit(flat(train.inputs), train.label)
        )
    else:
        with contextlib.redirect_stderr(
            io.StringIO()
        ):  # a line per epoch of every training would bury the results
            model = NetworkCandidate(fit_network(settings, run))
    return kinds.of(kind).metrics(
        kinds.of(kind).decide(model.outputs(held.inputs).raw, Rule()), held.label
    )


def train_all(
    contenders: dict[str, Contender],
    mode: Mode,
    num: int,
    parent: tracking.Run,
    folder: Path,
    metric: str,
) -> tuple[Scores, tuple[int, int]]:
    """Both contenders on each resample, or with each seed on one, and with equal seeds; mean rows
    learned and held.
    """
    settings, log = contenders["a"].settings, logs.get("compare")
    rows = pd.concat([pd.read_parquet(settings.paths.splits / f"{name}.parquet") for name in POOL])
    provenance, scores, started = (
        tracking.provenance_tags(settings),
        Scores(a=[], b=[]),
        time.monotonic(),
    )
    sizes = []
    for i in range(num):
        splits = folder / str(i) / "splits"
        sizes.append(cut(settings, rows, [settings.seed, i if mode == "resamples" else 0], splits))
        for side, one in contenders.items():
            own = {n: folder / str(i) / side / n for n in ("model", "reports", "state")}
            paths = one.settings.paths.model_copy(update={"splits": splits, **own})
            seeded = one.settings.model_copy(update={"seed": settings.seed + i, "paths": paths})
            tags = {
                "candidate": "classical" if one.classical else "network",
                "compare.side": side,
                "compare.round": i,
            }
            with tracking.start(settings, f"{side} {i + 1}/{num}", parent, tags) as child:
                child.params(seeded.model_dump(mode="json"))
                child.tags(provenance)
                found = evaluate_one(one, seeded, child)
                child.metrics(found, "held_out.")
            scores[side].append(found[metric])
        shutil.rmtree(folder / str(i))
        log.info("%s %d of %d: %s %s", mode[:-1], i + 1, num, metric, _both(scores))
        if i == 0 and num > 1:
            took = time.monotonic() - started
            log.info(
                "a pair took %.0f s: the other %d take about %.0f s",
                took,
                num - 1,
                took * (num - 1),
            )
    learned, held = np.mean(sizes, axis=0)
    return scores, (round(learned), round(held))


def _both(scores: Scores) -> str:
    return ", ".join(f"{side} {values[-1]:.4f}" for side, values in scores.items())


def test(scores: Scores, mode: Mode, sizes: tuple[int, int], metric: str, alpha: float) -> Paired:
    """The test of the mode; differences as losses, so that a positive one speaks against a."""
    sign = 1 if metric in LOWER_IS_BETTER else -1
    differences = sign * (np.array(scores["a"]) - np.array(scores["b"]))
    return (
        resampled(differences, *sizes, alpha) if mode == "resamples" else seeds(differences, alpha)
    )

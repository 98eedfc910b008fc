"""Trains the network and the baselines, or goes on with a training that was interrupted.

`train --pipeline` is the DVC stage: params.yaml in, artifacts/model out. Without it this is Hydra's
own command line, for exploring: `train model.width=64 trainer=gpu`, `-m optimizer=adamw,sgd`,
`--cfg job`; results go to outputs/<time>/, and an interrupted one goes on with `train
hydra.run.dir=outputs/<time>` and the same overrides.
"""

import argparse
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs
from ..settings import SCORE, Settings, parse

if TYPE_CHECKING:
    from ..tracking import Run

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, of Lightning, of srun
PLOTS_BASELINES = importlib.util.find_spec(f"{__package__}.baseline_plots") is not None
Metrics = dict[str, dict[str, dict[str, float]]]  # candidate, split, metric


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pipeline",
        action="store_true",
        help="read params.yaml and write artifacts/model, as `dvc repro` does",
    )


def explore(argv: list[str]) -> int:
    """Hydra's command line over configs/, multirun included; never writes a pipeline output."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    def job(config: DictConfig) -> float:
        try:
            return explore_one(parse(OmegaConf.to_container(config, resolve=True)))  # type: ignore[arg-type]
        except Exception as error:  # Hydra would print its own traceback
            line = logs.explain(error)
            if line is None:
                raise
            raise SystemExit(f"error: {line}") from None

    def explore_one(settings: Settings) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        paths = settings.paths.model_copy(
            update={name: folder / name for name in ("model", "reports", "state")}
        )
        metrics = train(settings.model_copy(update={"paths": paths}))
        if not metrics:
            return float("nan")
        print(f"results in {folder}")
        return float(metrics["network"]["val"][settings.data.goal.metric])

    sys.argv = ["train", *argv]
    hydra.main(
        version_base="1.3", config_path=str(Path("configs").resolve()), config_name="config"
    )(job)()
    return 0


def run(settings: Settings, args: argparse.Namespace) -> int:
    train(settings)
    return 0


def train(settings: Settings) -> Metrics:
    """Fits all candidates in one tracking run and its children; returns metrics by candidate and
    split.
    """
    from .. import tracking
    from . import checkpoints
    from .fit import fit_network

    if next((rank for rank in map(os.environ.get, RANKS) if rank is not None), "0") != "0":
        fit_network(
            settings, None, resume=True
        )  # of a distributed run: the first process keeps the record
        return {}
    started = time.time()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end is as good as Ctrl-C
    with logs.stage("train") as log, checkpoints.lock(settings):
        key, given_up = checkpoints.claim(settings)
        given_up_run = tracking.attach(settings, given_up) if given_up else None
        if given_up_run:
            given_up_run.finish("KILLED")
        record = tracking.start(settings, "train", tags={"candidate": "network"}, key=key)
        with record:
            metrics, children = fit_all(settings, record)
        tracking.remember(settings, record, started, children)
        if (
            "DVC_STAGE" not in os.environ
        ):  # there, `pipeline` does it when DVC has our outputs: a kill may come before
            checkpoints.forget(settings)
        shown = {name: round(m["val"][SCORE[settings.data.kind]], 4) for name, m in metrics.items()}
        log.info(
            "validation %s: %s",
            SCORE[settings.data.kind],
            ", ".join(f"{k} {v}" for k, v in shown.items()),
        )
    return metrics


def fit_all(settings: Settings, record: "Run") -> "tuple[Metrics, dict[str, Run]]":
    """The network and the baselines, all of them saved and recorded; doing it again after a kill
    changes nothing.
    """
    from .. import tracking
    from ..data.datamodule import load
    from . import checkpoints
    from .fit import fit_network

    if checkpoints.latest(checkpoints.state_folder(settings)) is None:
        tracking.record_inputs(record, settings)
    network = fit_network(settings, record, resume=True)
    splits = {name: load(settings, name) for name in ("train", "val")}
    metrics = fit_others(settings, network, splits)
    children = record_baselines(settings, metrics, record)
    record.metrics(tracking.flatten(metrics["network"]))
    record.artifacts([settings.paths.model], "model")
    return metrics, children


def fit_others(settings: Settings, network: Any, splits: dict[str, Any]) -> Metrics:
    """Fits the baselines and saves every candidate: metrics by candidate and split."""
    from ..modeling import baselines, candidates, kinds
    from ..provenance import read_json, stamp, write_json
    from ..task.baselines import classical
    from ..types import Rule
    from .fit import HEALTH

    train_split, kind = splits["train"], settings.data.kind
    model = classical(kind, settings.seed).fit(
        baselines.flat(train_split.inputs), train_split.label
    )
    learned: dict[str, candidates.Candidate] = {
        "network": candidates.NetworkCandidate(network),
        "classical": candidates.ClassicalCandidate(model),
    }
    raw = {
        name: {s: c.outputs(e.inputs).raw for s, e in splits.items()} for name, c in learned.items()
    }
    for name, simple in baselines.simple_baselines(kind).items():
        simple.fit(train_split.inputs, train_split.label)
        raw[name] = {s: simple.predict(e.inputs) for s, e in splits.items()}
    metrics: Metrics = {
        name: {
            s: kinds.of(kind).metrics(kinds.of(kind).decide(r, Rule()), splits[s].label)
            for s, r in found.items()
        }
        for name, found in raw.items()
    }
    candidates.save(settings.paths.model, network, model)
    shown = {name: found["val"] for name, found in raw.items() if name != "network"}
    if PLOTS_BASELINES:
        from . import baseline_plots

        baseline_plots.draw_all(settings, shown, splits["val"].label, {"classical": model[-1]})
    health = read_json(settings.paths.state / HEALTH)
    report = {"provenance": stamp(settings, "train"), "metrics": metrics, "health": health}
    write_json(settings.paths.reports / "training.json", report)
    return metrics


def record_baselines(settings: Settings, metrics: Metrics, parent: "Run") -> "dict[str, Run]":
    """Each baseline as a run of its own, below the network's and under a key that follows from its."""
    from .. import tracking
    from ..modeling.candidates import CLASSICAL

    children = {}
    for name in ("constant", "heuristic", "classical"):
        tags = {"candidate": name, **tracking.provenance_tags(settings)}
        with tracking.start(
            settings, f"baseline {name}", parent, tags, key=f"{parent.key}-{name}"
        ) as child:
            child.metrics(tracking.flatten(metrics[name]))
            child.artifacts([settings.paths.state / "plots" / name], "plots")
            if name == "classical":
                child.artifacts([settings.paths.model / CLASSICAL], "model")
        children[name] = child
    return children

"""Trains the network and the baselines, or goes on with a training that was interrupted.

`train --pipeline` is the DVC stage: params.yaml in, artifacts/model out. Without it this is Hydra's
own command line, for exploring: `train model.width=64 trainer=gpu`, `-m optimizer=adamw,sgd`,
`--cfg job`; results go to outputs/<time>/, and an interrupted one goes on with `train
hydra.run.dir=outputs/<time>` and the same overrides.
"""

import argparse
import itertools
import os
import signal
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from .. import logs
from ..params import compose, variants
from ..settings import SCORE, Settings, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from ..tracking import Run

# Hydra's options, and those that another word follows.
OPTIONS = ["-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help", "--version"]
WITH_VALUE = ["-c", "--cfg", "-p", "--package", "-cn", "--config-name", "-cd", "--config-dir"]
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, of Lightning, of srun
# A lean project draws no plots of the baselines.
BASELINE_PLOTS = find_spec(f"{__package__}.baseline_plots")  # a lean project has none
Metrics = dict[str, dict[str, dict[str, float]]]  # candidate, split, metric


def arguments(parser: argparse.ArgumentParser) -> None:
    text = "read params.yaml and write artifacts/model, as `dvc repro` does"
    parser.add_argument("--pipeline", action="store_true", help=text)


def explore(argv: list[str]) -> int:
    """Hydra's command line over configs/, multirun included; never writes a pipeline output."""
    import hydra

    check(argv)
    sys.argv = ["train", *argv]
    configs = str(Path("configs").resolve())
    hydra.main(version_base="1.3", config_path=configs, config_name="config")(explore_one)()
    return 0


def check(argv: list[str]) -> None:
    """Raises ValueError, a line where Hydra has six; of a multirun, for each of its values."""
    words = list[str]()
    for before, word in itertools.pairwise(["", *argv]):
        option = word.partition("=")[0]
        if word.startswith("-") and option not in {*OPTIONS, *WITH_VALUE}:
            raise ValueError(f"unknown option {option}: `train --help` names those that there are")
        if not word.startswith("-") and before not in WITH_VALUE:
            words.append(word)
    if {*argv} & {"-m", "--multirun"}:
        for choice in variants(words):
            parse(yaml.safe_load(compose(choice)))
    else:
        compose(words)


def explore_one(config: "DictConfig") -> float:
    """Trains one configuration; returns the goal's metric on the validation split."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        settings = parse(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        metrics = train(settings.below(folder))
    except Exception as error:  # Hydra would print its own traceback
        line = logs.explain(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"results in {folder}")
    return metrics["network"]["val"][settings.data.goal.metric] if metrics else float("nan")


def run(settings: Settings, args: argparse.Namespace) -> int:
    train(settings)
    return 0


def train(settings: Settings) -> Metrics:
    """Fits all candidates in one tracking run and its children; returns their metrics."""
    from .. import tracking
    from . import checkpoints
    from .fit import fit_network

    if any(os.environ.get(rank, "0") != "0" for rank in RANKS):
        fit_network(settings, None, resume=True)  # the first process keeps the record
        return {}
    started = time.time()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end is as good as Ctrl-C
    with logs.stage("train") as log, checkpoints.lock(settings):
        key = checkpoints.claim(settings)
        tags = {"candidate": "network"}
        with tracking.start(settings, "train", tags=tags, key=key) as record:
            if checkpoints.newest(checkpoints.state_folder(settings)) is None:
                tracking.record_inputs(record, settings)
            network = fit_network(settings, record, resume=True)
            metrics = fit_baselines(settings, network)
            children = record_baselines(settings, metrics, record)
            record.metrics(tracking.flatten(metrics["network"]))
            record.artifacts([settings.paths.model], "model")
        tracking.remember(settings, record, started, children)
        if "DVC_STAGE" not in os.environ:
            # There, `pipeline` does it when DVC has our outputs: a kill may come before.
            checkpoints.forget(settings)
        score = SCORE[settings.data.kind]
        scores = [f"{name} {splits['val'][score]:.4f}" for name, splits in metrics.items()]
        log.info("validation %s: %s", score, ", ".join(scores))
    return metrics


def fit_baselines(settings: Settings, network: "nn.Module") -> Metrics:
    """Fits the baselines, saves every candidate, and writes reports/training.json."""
    from ..data.datamodule import load
    from ..modeling import baselines, candidates, kinds
    from ..provenance import read_json, stamp, write_json
    from ..task.baselines import classical
    from ..types import Rule
    from .fit import HEALTH

    kind = kinds.of(settings.data.kind)
    splits = {name: load(settings, name) for name in ("train", "val")}
    train = splits["train"]
    model = classical(settings.data.kind, settings.seed)
    rows = baselines.with_all_classes(train.inputs, train.label, settings.data.labels)
    model.fit(baselines.flat(rows[0]), rows[1])
    candidates.save(settings.paths.model, network, model)
    simple = baselines.simple_baselines(settings.data.kind)
    for baseline in simple.values():
        baseline.fit(*rows)
    metrics: Metrics = {name: {} for name in ("network", "classical", *simple)}
    for split, examples in splits.items():
        raw = {name: baseline.predict(examples.inputs) for name, baseline in simple.items()}
        raw["network"] = candidates.NetworkCandidate(network).outputs(examples.inputs).raw
        raw["classical"] = candidates.ClassicalCandidate(model).outputs(examples.inputs).raw
        for name, outputs in raw.items():
            metrics[name][split] = kind.metrics(kind.decide(outputs, Rule()), examples.label)
    if BASELINE_PLOTS:
        del raw["network"]
        plots = import_module(BASELINE_PLOTS.name)
        plots.draw_all(settings, raw, splits["val"].label, model[-1])
    health = read_json(settings.paths.state / HEALTH)
    report = {"provenance": stamp(settings, "train"), "metrics": metrics, "health": health}
    write_json(settings.paths.reports / "training.json", report)
    return metrics


def record_baselines(settings: Settings, metrics: Metrics, parent: "Run") -> "dict[str, Run]":
    """Each baseline as a run below the network's, under a key that follows from its."""
    from .. import tracking
    from ..modeling.candidates import CLASSICAL

    children, inputs = {}, tracking.provenance_tags(settings)
    for name in [n for n in metrics if n != "network"]:
        tags = {"candidate": name, **inputs}
        key = f"{parent.key}-{name}"
        with tracking.start(settings, f"baseline {name}", parent, tags, key=key) as child:
            child.metrics(tracking.flatten(metrics[name]))
            if BASELINE_PLOTS:
                plots = import_module(BASELINE_PLOTS.name)
                child.artifacts([plots.folder(settings, name)], "plots")
            if name == "classical":
                child.artifacts([settings.paths.model / CLASSICAL], "model")
        children[name] = child
    return children

"""Trains the network and the baselines, or goes on with a training that was interrupted.

`train --pipeline` is the DVC stage: params.yaml in, artifacts/model out. Without it this is Hydra's
own command line, for exploring: `train model.width=64 trainer=gpu`, `-m optimizer=adamw,sgd`,
`--cfg job`; results go to outputs/<time>/, and an interrupted one goes on with `train
hydra.run.dir=outputs/<time>` and the same overrides.
"""

import argparse
import os
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs
from ..settings import SCORE, Settings, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from ..tracking import Run
    from ..types import Examples

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # of torchrun, of Lightning, of srun
# A lean project draws no plots of the baselines.
PLOTS_BASELINES = find_spec(f"{__package__}.baseline_plots") is not None
Metrics = dict[str, dict[str, dict[str, float]]]  # candidate, split, metric


def arguments(parser: argparse.ArgumentParser) -> None:
    text = "read params.yaml and write artifacts/model, as `dvc repro` does"
    parser.add_argument("--pipeline", action="store_true", help=text)


def explore(argv: list[str]) -> int:
    """Hydra's command line over configs/, multirun included; never writes a pipeline output."""
    import hydra

    sys.argv = ["train", *argv]
    configs = str(Path("configs").resolve())
    hydra.main(version_base="1.3", config_path=configs, config_name="config")(explore_one)()
    return 0


def explore_one(config: "DictConfig") -> float:
    """Trains one configuration; returns the goal's metric on the validation split."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    folder = Path(HydraConfig.get().runtime.output_dir)
    own = {name: folder / name for name in ("model", "reports", "state")}
    try:
        settings = parse(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        paths = settings.paths.model_copy(update=own)
        metrics = train(settings.model_copy(update={"paths": paths}))
    except Exception as error:  # Hydra would print its own traceback
        line = logs.explain(error)
        if line is None:
            raise
        raise SystemExit(f"error: {line}") from None
    if not metrics:
        return float("nan")
    print(f"results in {folder}")
    return metrics["network"]["val"][settings.data.goal.metric]


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
        key, tags = checkpoints.claim(settings), {"candidate": "network"}
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
    from ..modeling import baselines, candidates
    from ..provenance import read_json, stamp, write_json
    from ..task.baselines import classical
    from .fit import HEALTH

    splits = {name: load(settings, name) for name in ("train", "val")}
    inputs, label = splits["train"].inputs, splits["train"].label
    model = classical(settings.data.kind, settings.seed).fit(baselines.flat(inputs), label)
    raw: dict[str, dict[str, Any]] = {}
    for candidate in (candidates.NetworkCandidate(network), candidates.ClassicalCandidate(model)):
        raw[candidate.name] = {s: candidate.outputs(e.inputs).raw for s, e in splits.items()}
    for name, simple in baselines.simple_baselines(settings.data.kind).items():
        simple.fit(inputs, label)
        raw[name] = {s: simple.predict(e.inputs) for s, e in splits.items()}
    candidates.save(settings.paths.model, network, model)
    if PLOTS_BASELINES:
        from . import baseline_plots

        outputs = {name: found["val"] for name, found in raw.items() if name != "network"}
        baseline_plots.draw_all(settings, outputs, splits["val"].label, {"classical": model[-1]})
    metrics = {name: judge(settings, outputs, splits) for name, outputs in raw.items()}
    health = read_json(settings.paths.state / HEALTH)
    report = {"provenance": stamp(settings, "train"), "metrics": metrics, "health": health}
    write_json(settings.paths.reports / "training.json", report)
    return metrics


def judge(
    settings: Settings, outputs: dict[str, Any], splits: "dict[str, Examples]"
) -> dict[str, dict[str, float]]:
    """Metrics by split of a candidate's raw outputs."""
    from ..modeling import kinds
    from ..types import Rule

    kind = kinds.of(settings.data.kind)
    return {s: kind.metrics(kind.decide(outputs[s], Rule()), splits[s].label) for s in splits}


def record_baselines(settings: Settings, metrics: Metrics, parent: "Run") -> "dict[str, Run]":
    """Each baseline as a run of its own, below the network's and under a key that follows from it."""
    from .. import tracking
    from ..modeling.candidates import CLASSICAL

    children = {}
    for name in ("constant", "heuristic", "classical"):
        tags = {"candidate": name, **tracking.provenance_tags(settings)}
        key = f"{parent.key}-{name}"
        with tracking.start(settings, f"baseline {name}", parent, tags, key=key) as child:
            child.metrics(tracking.flatten(metrics[name]))
            if PLOTS_BASELINES:
                from . import baseline_plots

                child.artifacts([baseline_plots.folder(settings, name)], "plots")
            if name == "classical":
                child.artifacts([settings.paths.model / CLASSICAL], "model")
        children[name] = child
    return children

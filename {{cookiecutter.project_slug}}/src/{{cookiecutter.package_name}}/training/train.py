"""Trains the network and the baselines.

`train --pipeline` is the DVC stage: params.yaml in, artifacts/model out. Without it this is Hydra's own command line,
for exploring: `train model.width=64 trainer=gpu`, `-m optimizer=adamw,sgd`, `--cfg job`; results go to outputs/<time>/.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from .. import logs
from ..settings import SCORE, Settings, parse
from .fit import fit_network

Metrics = dict[str, dict[str, dict[str, float]]]  # candidate, split, metric


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pipeline", action="store_true", help="read params.yaml and write artifacts/model, as `dvc repro` does"
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
        paths = settings.paths.model_copy(update={name: folder / name for name in ("model", "reports", "state")})
        metrics = train(settings.model_copy(update={"paths": paths}))
        if not metrics:
            return float("nan")
        print(f"results in {folder}")
        return float(metrics["network"]["val"][settings.data.goal.metric])

    sys.argv = ["train", *argv]
    hydra.main(version_base="1.3", config_path=str(Path("configs").resolve()), config_name="config")(job)()
    return 0


def run(settings: Settings, args: argparse.Namespace) -> int:
    train(settings)
    return 0


def train(settings: Settings) -> Metrics:
    """Fits all candidates in one tracking run and its children; returns metrics by candidate and split."""
    from ..data.datamodule import load
    from ..experiments import tracking

    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))):
        fit_network(settings, None)  # another process of a distributed run: the first one keeps the record
        return {}
    started = time.time()
    with logs.stage("train") as log:
        record = tracking.start(settings, "train", tags={"candidate": "network"})
        try:
            tracking.record_inputs(record, settings)
            network = fit_network(settings, record.id)
            splits = {name: load(settings, name) for name in ("train", "val")}
            metrics, children = _fit_others(settings, network, splits, record)
            record.metrics(tracking.flatten(metrics["network"]))
            record.artifacts([settings.paths.model], "model")
            tracking.remember(settings, record, started, children)
        except BaseException as error:
            record.finish("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
            raise
        record.finish()
        shown = {name: round(m["val"][SCORE[settings.data.kind]], 4) for name, m in metrics.items()}
        log.info("validation %s: %s", SCORE[settings.data.kind], ", ".join(f"{k} {v}" for k, v in shown.items()))
    return metrics


def _fit_others(
    settings: Settings, network: Any, splits: dict[str, Any], parent: Any
) -> tuple[Metrics, dict[str, str]]:
    """Fits the baselines, saves every candidate, and records each baseline as a run of its own: metrics and run ids."""
    from ..experiments import tracking
    from ..modeling import baselines, candidates
    from ..modeling.classical import classical
    from ..modeling.metrics import evaluate
    from ..modeling.predictions import Rule, decide
    from ..provenance import stamp, write_json

    train_split, kind = splits["train"], settings.data.kind
    model = classical(kind, settings.seed).fit(baselines.flat(train_split.inputs), train_split.label)
    learned: dict[str, candidates.Candidate] = {
        "network": candidates.NetworkCandidate(network),
        "classical": candidates.ClassicalCandidate(model),
    }
    raw = {name: {s: c.outputs(e.inputs).raw for s, e in splits.items()} for name, c in learned.items()}
    for name, simple in baselines.simple_baselines(kind).items():
        simple.fit(train_split.inputs, train_split.label)
        raw[name] = {s: simple.predict(e.inputs) for s, e in splits.items()}
    metrics: Metrics = {
        name: {s: evaluate(kind, decide(kind, r, Rule()), splits[s].label) for s, r in found.items()}
        for name, found in raw.items()
    }
    candidates.save(settings.paths.model, network, model)
    children = {}
    for name in ("constant", "heuristic", "classical"):
        child = tracking.start(settings, f"baseline {name}", parent=parent.id, tags={"candidate": name})
        child.tags(tracking.provenance_tags(settings))
        child.metrics(tracking.flatten(metrics[name]))
        if name == "classical":
            child.artifacts([settings.paths.model / candidates.CLASSICAL], "model")
        child.finish()
        children[name] = child.id
    report = {"provenance": stamp(settings, "train"), "metrics": metrics}
    write_json(settings.paths.reports / "training.json", report)
    return metrics, children

"""Exports the candidate that goes to the gate as a bundle; measures parity, size and latency."""

import argparse
import json
import shutil
import statistics
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from .. import logs, tracking
from ..data.datamodule import load
from ..modeling import kinds
from ..modeling.candidates import Candidate
from ..modeling.candidates import load as load_candidates
from ..provenance import read_json, stamp, write_json
from ..settings import Settings
from ..task.features import Features, row_to_instance, signals
from ..types import Decisions, Estimates, Examples, Rule
from .bundle import CARD, EXAMPLES, MODEL, REFERENCE, Bundle, Card, Tensor, seal
from .export import described, export, rows_of

CONFIG = (
    "seed",
    "project",
    "data",
    "augmentation",
    "model",
    "optimizer",
    "scheduler",
    "loss",
    "trainer",
    "training",
    "evaluation",
    "packaging",
)
SERVED_WITH = ("numpy", "onnxruntime", "pydantic")


def card(
    settings: Settings,
    evaluation: dict[str, Any],
    example: dict[str, NDArray[Any]],
    outputs: dict[str, Tensor],
) -> Card:
    """What the model is, takes and answers."""
    made = stamp(settings, "package")
    return Card(
        name=settings.project.name,
        kind=settings.data.kind,
        task=settings.data.name,
        labels=settings.data.labels,
        inputs={k: Tensor(**v) for k, v in described(example).items()},
        outputs=outputs,
        features=settings.data.features,
        candidate=evaluation["candidate"],
        owner=settings.project.owner,
        code=made["code"],
        data=made["data"],
        dependencies={name: metadata.version(name) for name in SERVED_WITH},
        decision=Rule.model_validate(evaluation["decision"]),
        label_scale=evaluation["label_scale"],
    )


def reference(
    candidate: Candidate, held_out: list[Examples], rule: Rule, settings: Settings
) -> dict[str, NDArray[Any]]:
    """Answers and signals on rows that the model was not fitted to, for the drift monitor."""
    inputs = {k: np.concatenate([e.inputs[k] for e in held_out]) for k in held_out[0].inputs}
    label = np.concatenate([e.label for e in held_out])
    rng = np.random.default_rng(settings.seed)
    rows = np.sort(rng.permutation(len(label))[: settings.packaging.reference_rows])
    inputs = rows_of(inputs, rows)
    outputs = candidate.outputs(inputs)
    answers = kinds.of(settings.data.kind).decide(outputs.raw, rule)
    found = signals(inputs, Features.model_validate(settings.data.features))
    arrays = {
        "signals": np.stack(list(found.values()), axis=1).astype(np.float32),
        "signal_names": np.array(list(found)),
        "labels": label[rows],
    }
    if isinstance(answers, Estimates):
        arrays |= {
            "value": answers.value.astype(np.float32),
            "deviation": answers.deviation.astype(np.float32),
        }
    else:
        arrays |= {"probabilities": answers.probabilities.astype(np.float32)}
    return arrays if outputs.embedding is None else {**arrays, "embedding": outputs.embedding}


def build(settings: Settings, folder: Path) -> None:
    """Writes all files of the bundle but its manifest."""
    evaluation = read_json(settings.paths.reports / "evaluation.json")
    candidate, test = load_candidates(settings)[evaluation["candidate"]], load(settings, "test")
    export(candidate, test.inputs, folder / MODEL)
    sample = candidate.outputs(rows_of(test.inputs, np.arange(8)))
    outputs = {"raw": Tensor(dtype="float32", shape=[-1, sample.raw.shape[1]])}
    if sample.embedding is not None:
        outputs["embedding"] = Tensor(dtype="float32", shape=[-1, sample.embedding.shape[1]])
    content = card(settings, evaluation, test.inputs, outputs)
    write_json(folder / CARD, content.model_dump(mode="json"))
    instances = [row_to_instance(row) for row in test.rows.head(8).to_dict("records")]
    (folder / EXAMPLES).write_text(
        json.dumps({"instances": instances, "raw": sample.raw.astype(float).tolist()}),
        encoding="utf-8",
    )
    held_out = [load(settings, "val"), load(settings, "calibration")]
    np.savez(
        folder / REFERENCE,
        allow_pickle=False,
        **reference(candidate, held_out, content.decision, settings),
    )
    config = {k: v for k, v in settings.model_dump(mode="json").items() if k in CONFIG}
    (folder / "params.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    shutil.copy(settings.paths.reports / "evaluation.json", folder / "evaluation.json")


def parity(bundle: Bundle, settings: Settings) -> float:
    """Largest absolute difference between training model and bundle over the test rows.

    Of a probability, or of a value in standard deviations of the labels.
    """
    candidate, test = load_candidates(settings)[bundle.card.candidate], load(settings, "test")
    trained, packaged = (
        bundle.decide(raw)
        for raw in (candidate.outputs(test.inputs).raw, bundle.infer(test.inputs)["raw"])
    )
    if isinstance(trained, Estimates) and isinstance(packaged, Estimates):
        return float(np.abs(trained.value - packaged.value).max() / bundle.card.label_scale)
    assert isinstance(trained, Decisions) and isinstance(packaged, Decisions)
    return float(np.abs(trained.probabilities - packaged.probabilities).max())


def latency_ratio(bundle: Bundle, example: dict[str, NDArray[Any]]) -> float:
    """Median time of one row through the bundle over that of a 256 x 256 float32 product, measured
    in turn.
    """
    matrix = np.ones((256, 256), np.float32)
    one = rows_of(example, np.arange(1))
    ratios = []
    for _ in range(60):
        started = time.perf_counter()
        bundle.infer(one)
        middle = time.perf_counter()
        _ = matrix @ matrix
        ratios.append((middle - started) / (time.perf_counter() - middle))
    return statistics.median(ratios[10:])


def verdicts(bundle: Bundle, settings: Settings) -> list[dict[str, Any]]:
    """Number, threshold and outcome of parity, size and latency."""
    limits, size = settings.packaging, sum(p.stat().st_size for p in bundle.folder.iterdir()) / 1e6
    found = {
        "parity": (parity(bundle, settings), limits.max_parity_error),
        "megabytes": (size, limits.max_megabytes),
        "latency ratio": (
            latency_ratio(bundle, load(settings, "test").inputs),
            limits.max_latency_ratio,
        ),
    }
    return [
        {"name": k, "number": v, "threshold": limit, "outcome": "pass" if v <= limit else "fail"}
        for k, (v, limit) in found.items()
    ]


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes artifacts/bundle whole or not at all, and reports/package.json; exit 0 whatever the
    verdicts.
    """
    with logs.stage("package") as log:
        draft = settings.paths.bundle.with_name(f".{settings.paths.bundle.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        build(settings, draft)
        seal(draft)
        shutil.rmtree(settings.paths.bundle, ignore_errors=True)
        draft.replace(settings.paths.bundle)
        bundle = Bundle.load(settings.paths.bundle)
        found = verdicts(bundle, settings)
        write_json(
            settings.paths.reports / "package.json",
            {"provenance": stamp(settings, "package", bundle.identity), "verdicts": found},
        )
        with tracking.current(settings, "package") as record:
            record.metrics({f"package.{v['name'].replace(' ', '_')}": v["number"] for v in found})
            record.tags({"stage.package": bundle.identity})
            record.artifacts([settings.paths.bundle], f"bundles/{bundle.identity[:12]}")
        log.info(
            "bundle %s: %s",
            bundle.identity[:12],
            ", ".join(f"{v['name']} {v['number']:.3g} ({v['outcome']})" for v in found),
        )
    return 0

"""Exports the candidate that goes to the gate as a bundle; measures parity, size and latency."""

import argparse
import json
import shutil
import statistics
import timeit
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
from ..types import Examples, Inputs, Rule
from .bundle import CARD, EXAMPLES, MODEL, REFERENCE, Bundle, Card, Tensor, seal
from .export import export, rows_of

SERVED_WITH = ("numpy", "onnxruntime", "pydantic")


def card(
    settings: Settings, evaluation: dict[str, Any], example: Inputs, outputs: dict[str, Tensor]
) -> Card:
    """What the model is, takes and answers."""
    made, data = stamp(settings, "package"), settings.data
    return Card(
        name=settings.project.name,
        kind=data.kind,
        task=data.name,
        labels=data.labels,
        inputs={name: tensor(values) for name, values in example.items()},
        outputs=outputs,
        features=data.features,
        candidate=evaluation["candidate"],
        owner=settings.project.owner,
        code=made["code"],
        data=made["data"],
        dependencies={name: metadata.version(name) for name in SERVED_WITH},
        decision=Rule.model_validate(evaluation["decision"]),
        label_scale=evaluation["label_scale"],
    )


def tensor(values: NDArray[Any]) -> Tensor:
    """Type and shape, with -1 for the number of rows."""
    return Tensor(dtype=str(values.dtype), shape=[-1, *values.shape[1:]])


def reference(
    candidate: Candidate, held_out: list[Examples], rule: Rule, settings: Settings
) -> dict[str, NDArray[Any]]:
    """Answers and signals on rows that the model was not fitted to, for the drift monitor."""
    inputs = {k: np.concatenate([e.inputs[k] for e in held_out]) for k in held_out[0].inputs}
    label = np.concatenate([e.label for e in held_out])
    rng = np.random.default_rng(settings.seed)
    rows = np.sort(rng.permutation(len(label))[: settings.packaging.reference_rows])
    inputs = rows_of(inputs, rows)
    outputs, kind = candidate.outputs(inputs), kinds.of(settings.data.kind)
    columns = signals(inputs, Features.model_validate(settings.data.features))
    arrays = {
        "signals": np.stack(list(columns.values()), axis=1).astype(np.float32),
        "signal_names": np.array(list(columns)),
        "labels": label[rows],
        **kind.reference(kind.decide(outputs.raw, rule)),
    }
    return arrays if outputs.embedding is None else {**arrays, "embedding": outputs.embedding}


def build(settings: Settings, folder: Path) -> None:
    """Writes all files of the bundle but its manifest."""
    report = settings.paths.reports / "evaluation.json"
    evaluation, test = read_json(report), load(settings, "test")
    candidate = load_candidates(settings)[evaluation["candidate"]]
    export(candidate, test.inputs, folder / MODEL)
    sample = candidate.outputs(rows_of(test.inputs, np.arange(8)))
    outputs = {"raw": tensor(sample.raw.astype(np.float32))}
    if sample.embedding is not None:
        outputs["embedding"] = tensor(sample.embedding.astype(np.float32))
    content = card(settings, evaluation, test.inputs, outputs)
    write_json(folder / CARD, content.model_dump(mode="json"))
    features = Features.model_validate(settings.data.features)
    instances = [row_to_instance(row, features) for row in test.rows.head(8).to_dict("records")]
    examples = {"instances": instances, "raw": sample.raw.astype(float).tolist()}
    (folder / EXAMPLES).write_text(json.dumps(examples), encoding="utf-8")
    held_out = [load(settings, "val"), load(settings, "calibration")]
    arrays = reference(candidate, held_out, content.decision, settings)
    np.savez(folder / REFERENCE, allow_pickle=False, **arrays)
    # Places of this machine, and passwords in them, are no property of the model.
    config = settings.model_dump(mode="json", exclude={"paths", "tracking"})
    (folder / "params.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    shutil.copy(report, folder)


def parity(bundle: Bundle, candidate: Candidate, test: Examples) -> float:
    """Largest absolute difference between training model and bundle over the test rows.

    Of a probability, or of a value in standard deviations of the labels.
    """
    trained = bundle.decide(candidate.outputs(test.inputs).raw)
    packaged = bundle.decide(bundle.infer(test.inputs)["raw"])
    return bundle.kind.difference(trained, packaged, bundle.card.label_scale)


def latency_ratio(bundle: Bundle, example: Inputs) -> float:
    """Median time of one row through the bundle over that of a 256 x 256 float32 product."""
    matrix, one = np.ones((256, 256), np.float32), rows_of(example, np.arange(1))
    bundle.infer(one)  # the first one takes longer
    row = timeit.repeat(lambda: bundle.infer(one), number=1, repeat=50)
    product = timeit.repeat(lambda: matrix @ matrix, number=1, repeat=50)
    return statistics.median(row) / statistics.median(product)


def verdicts(bundle: Bundle, settings: Settings) -> list[dict[str, Any]]:
    """Number, threshold and outcome of parity, size and latency."""
    limits, size = settings.packaging, sum(p.stat().st_size for p in bundle.folder.iterdir()) / 1e6
    candidate, test = load_candidates(settings)[bundle.card.candidate], load(settings, "test")
    numbers = {
        "parity": (parity(bundle, candidate, test), limits.max_parity_error),
        "megabytes": (size, limits.max_megabytes),
        "latency ratio": (latency_ratio(bundle, test.inputs), limits.max_latency_ratio),
    }
    rows = []
    for name, (number, limit) in numbers.items():
        outcome = "pass" if number <= limit else "fail"
        rows.append({"name": name, "number": number, "threshold": limit, "outcome": outcome})
    return rows


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes artifacts/bundle whole or not at all, and reports/package.json; exit 0 whatever the
    verdicts.
    """
    with logs.stage("package") as log:
        folder = settings.paths.bundle
        draft = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        build(settings, draft)
        seal(draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)
        bundle = Bundle.load(folder)
        short, rows = bundle.identity[:12], verdicts(bundle, settings)
        report = {"provenance": stamp(settings, "package", bundle.identity), "verdicts": rows}
        write_json(settings.paths.reports / "package.json", report)
        with tracking.current(settings, "package") as record:
            names = [f"package.{row['name'].replace(' ', '_')}" for row in rows]
            record.metrics(dict(zip(names, (row["number"] for row in rows), strict=True)))
            record.tags({"stage.package": bundle.identity})
            record.artifacts([folder], f"bundles/{short}")
        words = [f"{row['name']} {row['number']:.3g} ({row['outcome']})" for row in rows]
        log.info("bundle %s: %s", short, ", ".join(words))
    return 0

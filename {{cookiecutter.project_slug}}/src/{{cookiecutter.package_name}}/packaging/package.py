"""Exports the candidate that goes to the gate as a bundle; measures parity, size and latency."""

import argparse
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
from ..evaluation.verdict import Verdict, outcome
from ..modeling import kinds
from ..modeling.candidates import Candidate
from ..modeling.candidates import load as load_candidates
from ..provenance import copy_content, read_json, stamp, write_json
from ..settings import Settings
from ..task.features import LIBRARIES, Features, row_to_instance, signals
from ..types import Examples, Inputs, Rule
from .bundle import CARD, EXAMPLES, MODEL, REFERENCE, Bundle, Card, Tensor, seal
from .export import export, rows_of

SERVED_WITH = ("numpy", "onnxruntime", "pandas", "pydantic", *LIBRARIES)


def tensor(values: NDArray[Any]) -> Tensor:
    """Type and shape, with -1 for the number of rows."""
    return Tensor(dtype=str(values.dtype), shape=[-1, *values.shape[1:]])


def reference(candidate: Candidate, card: Card, settings: Settings) -> Inputs:
    """Answers and signals on rows that the model was not fitted to, for the drift monitor."""
    parts = [load(settings, "val"), load(settings, "calibration")]
    label = np.concatenate([part.label for part in parts])
    order = np.random.default_rng(settings.seed).permutation(len(label))
    rows = np.sort(order[: settings.packaging.reference_rows])
    inputs = {k: np.concatenate([part.inputs[k] for part in parts])[rows] for k in card.inputs}
    outputs, kind = candidate.outputs(inputs), kinds.of(card.kind)
    columns = signals(inputs, Features.model_validate(card.features))
    arrays = {
        "signals": np.stack(list(columns.values()), axis=1).astype(np.float32),
        "signal_names": np.array(list(columns)),
        "labels": label[rows],
        **kind.reference(kind.decide(outputs.raw, card.decision)),
    }
    return arrays if outputs.embedding is None else {**arrays, "embedding": outputs.embedding}


def build(settings: Settings, folder: Path) -> None:
    """Writes all files of the bundle but its manifest."""
    report, data = settings.paths.reports / "evaluation.json", settings.data
    evaluation, test = read_json(report), load(settings, "test")
    candidate = load_candidates(settings)[evaluation["candidate"]]
    export(candidate, test.inputs, folder / MODEL)
    sample = candidate.outputs(rows_of(test.inputs, np.arange(8)))
    outputs = {"raw": sample.raw, "embedding": sample.embedding}
    made = stamp(settings, "package")
    card = Card(
        name=settings.project.name,
        kind=data.kind,
        task=data.name,
        predicts=data.predicts,
        unit=data.unit,
        labels=data.labels,
        inputs={name: tensor(values) for name, values in test.inputs.items()},
        outputs={k: tensor(v.astype(np.float32)) for k, v in outputs.items() if v is not None},
        features=data.features,
        candidate=evaluation["candidate"],
        owner=settings.project.owner,
        code=made["code"],
        data=made["data"],
        dependencies={name: metadata.version(name) for name in SERVED_WITH},
        decision=Rule.model_validate(evaluation["decision"]),
        label_scale=evaluation["label_scale"],
    )
    write_json(folder / CARD, card.model_dump(mode="json"))
    features = Features.model_validate(settings.data.features)
    instances = [row_to_instance(row, features) for row in test.rows.head(8).to_dict("records")]
    write_json(folder / EXAMPLES, {"instances": instances, "raw": sample.raw.tolist()})
    np.savez(folder / REFERENCE, allow_pickle=False, **reference(candidate, card, settings))
    # Places of this machine, and passwords in them, are no property of the model.
    config = settings.model_dump(mode="json", exclude={"paths", "tracking"})
    (folder / "params.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    copy_content(report, folder / report.name)


def parity(bundle: Bundle, candidate: Candidate, test: Examples) -> float:
    """Largest absolute difference between training model and bundle over the test rows.

    Of a probability, or of a value in standard deviations of the labels.
    """
    trained = bundle.decide(candidate.outputs(test.inputs).raw)
    packaged = bundle.decide(bundle.infer(test.inputs)["raw"])
    return float(bundle.kind.difference(trained, packaged, bundle.card.label_scale))


def latency_ratio(bundle: Bundle, example: Inputs) -> float:
    """Median time of one row through the bundle over that of a 256 x 256 float32 product."""
    matrix, one = np.ones((256, 256), np.float32), rows_of(example, np.arange(1))
    bundle.infer(one)  # the first one takes longer
    row = timeit.repeat(lambda: bundle.infer(one), number=1, repeat=50)
    product = timeit.repeat(lambda: matrix @ matrix, number=1, repeat=50)
    return statistics.median(row) / statistics.median(product)


def verdicts(bundle: Bundle, settings: Settings) -> list[Verdict]:
    """P2: parity, size and latency."""
    limits, size = settings.packaging, sum(p.stat().st_size for p in bundle.folder.iterdir()) / 1e6
    candidate, test = load_candidates(settings)[bundle.card.candidate], load(settings, "test")
    results = []
    for title, number, limit in (
        ("parity", parity(bundle, candidate, test), limits.max_parity_error),
        ("megabytes", size, limits.max_megabytes),
        ("latency ratio", latency_ratio(bundle, test.inputs), limits.max_latency_ratio),
    ):
        why = f"{number:.3g}, limit {limit:g}"
        results.append(Verdict("P2", title, outcome(number <= limit), number, limit, why))
    return results


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
        short, results = bundle.identity[:12], verdicts(bundle, settings)
        made = stamp(settings, "package", bundle.identity)
        report = {"provenance": made, "verdicts": [result.record() for result in results]}
        write_json(settings.paths.reports / "package.json", report)
        with tracking.current(settings, "package") as record:
            record.metrics({f"package.{r.title.replace(' ', '_')}": r.number or 0 for r in results})
            record.tags({"stage.package": bundle.identity})
            record.artifacts([folder], f"bundles/{short}")
        words = [f"{result.title} {result.why} ({result.outcome})" for result in results]
        log.info("bundle %s: %s", short, "; ".join(words))
    return 0

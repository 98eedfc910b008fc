"""Runs the quality methods on the candidates and writes one report; `promote` decides on what
stands there.
"""

import argparse
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .. import logs, personal, tracking
from ..data.datamodule import label_scale, load
from ..modeling import baselines, kinds
from ..modeling.candidates import load as load_candidates
from ..provenance import read_json, stamp, write_json
from ..settings import LOWER_IS_BETTER, Settings
from ..types import Behaviour, Floats, Rule
from . import calibration, comparison, confidence, cost, direction, perturbation, slices, subject
from .subject import Subject
from .verdict import Verdict, outcome

SPLITS = ("train", "val", "calibration", "test")
ATTRIBUTION = find_spec(f"{__package__}.attribution")  # in the full profile alone
Losses = dict[str, Floats]


def judge(model: Subject, losses: Losses) -> Iterator[Verdict]:
    """One verdict per method, from the model and from all models' losses on the test rows; each is
    worked out when it is asked for.
    """
    data, limits, scale = model.settings.data, model.settings.evaluation, model.scale
    kind, test, declared, answer = data.kind, model.test, model.declared, model.answer
    raw, name, rows = model.raw["test"], model.candidate.name, len(model.splits["calibration"])
    tolerances = limits.invariance.tolerance * scale, limits.direction.tolerance * scale
    shown = replace(test, rows=personal.rows(test.rows, personal.marks(data.features)))
    subgroups = declared.slices(test), declared.columns(shown), model.embedding
    stored = kind, raw, test.label, model.rule
    yield metrics(model)
    yield cost.judge(kind, data.goal.costs, model.answers(), test.label, limits.cost)
    yield comparison.judge(losses, name, kind, limits.comparison)
    yield robustness(model, declared)
    altered = direction.altered(kind, answer, test.inputs, declared.invariances, tolerances[0])
    yield direction.judge("M8", altered, limits.invariance, limits.examples)
    misdirected = direction.misdirected(
        kind,
        answer,
        test.inputs,
        test.label,
        declared.directions,
        data.labels,
        tolerances[1],
        model.generator(),
    )
    yield direction.judge("M9", misdirected, limits.direction, limits.examples)
    yield calibration.judge(*stored, limits.calibration, scale)
    yield confidence.judge(*stored, limits.confidence, scale, rows)
    yield slices.judge(losses[name], *subgroups, limits.slices)


def metrics(model: Subject) -> Verdict:
    """M3: the project's own metric against its bound."""
    goal = model.settings.data.goal
    value = model.functions.metrics(model.answers(), model.test.label)[goal.metric]
    lower = goal.metric in LOWER_IS_BETTER
    bound = goal.at_most if lower else goal.at_least
    assert bound is not None
    passed = outcome(value <= bound if lower else value >= bound)
    why, details = f"test {goal.metric} {value:.4f}", {"lower_is_better": lower}
    return Verdict("M3", "Metrics", passed, round(value, 4), bound, why, details)


def robustness(model: Subject, declared: Behaviour) -> Verdict:
    """M7: the score under the declared perturbations, and of a network under attacks."""
    limits, test = model.settings.evaluation.perturbation, model.test
    kind, attacks = model.settings.data.kind, {}
    network = getattr(model.candidate, "network", None)
    if network is not None and declared.ranges:
        for name, steps in {"FGSM": 1, "PGD": limits.steps}.items():
            options = declared.ranges, limits.epsilon, steps
            moved = perturbation.attack(network, kind, test.inputs, test.label, *options)
            attacks[name] = model.score(moved)
    changes, rng = declared.perturbations, model.generator()
    curves = perturbation.curves(model.score, test.inputs, changes, rng)
    return perturbation.judge(model.score(test.inputs), curves, attacks, limits)


def choose(settings: Settings) -> tuple[Subject, dict[str, Any], Losses]:
    """The better candidate; what the report says of all models; and their losses on the test
    rows.
    """
    splits, scale = {name: load(settings, name) for name in SPLITS}, label_scale(settings)
    kind, functions, test = settings.data.kind, kinds.of(settings.data.kind), splits["test"]
    models = {
        name: subject.fit(candidate, splits, settings, scale)
        for name, candidate in load_candidates(settings).items()
    }
    operations = {name: m.candidate.operations(test.inputs) for name, m in models.items()}
    losses = {name: m.losses(test.inputs, test.label) for name, m in models.items()}
    name, why = comparison.select(losses, operations, kind, settings.evaluation.comparison.alpha)
    answers = {(n, split): m.answers(split) for n, m in models.items() for split in splits}
    train = splits["train"]
    rows = baselines.with_all_classes(train.inputs, train.label, settings.data.labels)
    for simple, baseline in baselines.simple_baselines(kind).items():
        fitted = baseline.fit(*rows)
        for split, examples in splits.items():
            answers[simple, split] = functions.decide(fitted.predict(examples.inputs), Rule())
        losses[simple] = functions.row_losses(answers[simple, "test"], test.label, scale)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for (n, split), given in answers.items():
        scores.setdefault(n, {})[split] = functions.metrics(given, splits[split].label)
    said = {"candidate": name, "selection": why, "metrics": scores, "operations": operations}
    return models[name], said, losses


def content(
    model: Subject, models: dict[str, Any], verdicts: list[Verdict], explanation: Any
) -> dict[str, Any]:
    """reports/evaluation.json: without times, so that the same model gives the same bytes."""
    confusion = model.functions.confusion(model.answers(), model.test.label)
    outcomes = [verdict.outcome for verdict in verdicts]
    worst = [outcome for outcome in ("fail", "cannot tell") if outcome in outcomes]
    record = {
        "provenance": stamp(model.settings, "evaluate"),
        "kind": model.settings.data.kind,
        "verdict": [*worst, "pass"][0],
        "methods": {v.method: v.record() for v in verdicts},
        "decision": model.rule.model_dump(),
        "label_scale": model.scale,
        "test_rows": len(model.test.label),
        "confusion": None if confusion is None else confusion.tolist(),
        **models,
    }
    return record | ({"explanation": explanation.record()} if explanation else {})


def record(settings: Settings, content: dict[str, Any], seconds: float) -> None:
    """To the tracking run."""
    numbers = {
        f"{name}.{verdict['title'].lower()}": verdict["number"]
        for name, verdict in content["methods"].items()
        if verdict["number"] is not None
    }
    files = ("evaluation.json", "evaluation.html", "losses.parquet", "plots")
    with tracking.current(settings, "evaluate") as run:
        run.metrics(tracking.flatten(content["metrics"][content["candidate"]]))
        run.metrics(numbers, "gate.")
        run.metrics({"seconds": seconds}, "evaluation.")
        run.tags({"stage.evaluate": content["verdict"], "selection": content["selection"]})
        run.artifacts([settings.paths.reports / name for name in files], "evaluation")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes reports/evaluation.json, .html, losses.parquet and plots/; exit 0 whatever the
    verdict.
    """
    from . import plots, report

    with logs.stage("evaluate") as log:
        reports = settings.paths.reports
        model, models, losses = choose(settings)
        started = time.perf_counter()
        verdicts = [*logs.progress(judge(model, losses), "%d methods judged")]
        # M5: attributions of the test rows.
        explanation = import_module(ATTRIBUTION.name).explain(model) if ATTRIBUTION else None
        seconds = time.perf_counter() - started
        made = content(model, models, verdicts, explanation)
        shutil.rmtree(reports / "plots", ignore_errors=True)
        files = plots.draw_all(model, made, explanation, reports / "plots")
        write_json(reports / "evaluation.json", made)
        scores = made["metrics"][made["candidate"]]
        write_json(reports / "metrics.json", {split: scores[split] for split in ("val", "test")})
        rows = model.test.rows[["id", "content", "label"]].reset_index(drop=True)
        # Runs are compared row by row: a hash still names a row where nothing else may.
        rows = personal.rows(rows, dict.fromkeys(personal.marks(settings.data.features), "hash"))
        # DVC may have linked it to its cache.
        (reports / "losses.parquet").unlink(missing_ok=True)
        rows.assign(**losses).to_parquet(reports / "losses.parquet", index=False)
        trained = read_json(reports / tracking.RUN_FILE)["run_id"]
        report.write(made, seconds, files, settings, trained, reports / "evaluation.html")
        record(settings, made, seconds)
        report.print_gate(made, seconds)
        log.info("%s; verdict: %s", made["selection"], made["verdict"])
    return 0

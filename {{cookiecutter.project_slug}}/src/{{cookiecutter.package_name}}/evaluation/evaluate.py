"""Runs the quality methods on the candidates and writes one report; `promote` decides on what
stands there.
"""

import argparse
import importlib.util
import shutil
import statistics
import time
from typing import Any

from .. import logs, tracking
from ..data.datamodule import label_scale, load
from ..modeling import baselines, kinds
from ..modeling.candidates import NetworkCandidate
from ..modeling.candidates import load as load_candidates
from ..provenance import stamp, write_json
from ..settings import LOWER_IS_BETTER, Settings
from ..types import Answers, Examples, Floats, Rule
from . import calibration, comparison, confidence, cost, direction, perturbation, slices, subject
from .subject import Subject
from .verdict import Verdict, outcome

SPLITS = ("train", "val", "calibration", "test")
EXPLAINS = importlib.util.find_spec(f"{__package__}.attribution") is not None
"""M5 and E5 are in the full profile alone."""
Losses = dict[str, Floats]


def metrics(model: Subject, losses: Losses) -> Verdict:
    """M3: the project's own metric against its bound."""
    goal = model.settings.data.goal
    value = model.functions.metrics(model.answers(), model.test.label)[goal.metric]
    lower = goal.metric in LOWER_IS_BETTER
    bound = goal.at_most if lower else goal.at_least
    assert bound is not None
    passed = outcome(value <= bound if lower else value >= bound)
    why, details = f"test {goal.metric} {value:.4f}", {"lower_is_better": lower}
    return Verdict("M3", "Metrics", passed, round(value, 4), bound, why, details)


def costs(model: Subject, losses: Losses) -> Verdict:
    data, limits = model.settings.data, model.settings.evaluation.cost
    return cost.judge(data.kind, data.goal.costs, model.answers(), model.test.label, limits)


def compared(model: Subject, losses: Losses) -> Verdict:
    limits = model.settings.evaluation.comparison
    return comparison.judge(losses, model.candidate.name, model.settings.data.kind, limits)


def robustness(model: Subject, losses: Losses) -> Verdict:
    limits, inputs = model.settings.evaluation.perturbation, model.test.inputs
    declared, attacks = model.declared, {}
    if isinstance(model.candidate, NetworkCandidate) and declared.ranges:
        for name, steps in {"FGSM": 1, "PGD": limits.steps}.items():
            moved = perturbation.attack(
                model.candidate.network,
                model.settings.data.kind,
                inputs,
                model.test.label,
                declared.ranges,
                limits.epsilon,
                steps,
            )
            attacks[name] = model.score(moved)
    curves = perturbation.curves(
        model.score, inputs, declared.perturbations, subject.generator(model)
    )
    return perturbation.judge(model.score(inputs), curves, attacks, limits)


def invariance(model: Subject, losses: Losses) -> Verdict:
    limits = model.settings.evaluation
    violations = direction.altered(
        model.settings.data.kind,
        model.answer,
        model.test.inputs,
        model.declared.invariances,
        limits.invariance.tolerance * model.scale,
    )
    return direction.judge("M8", violations, limits.invariance, limits.examples)


def directions(model: Subject, losses: Losses) -> Verdict:
    limits, data = model.settings.evaluation, model.settings.data
    violations = direction.misdirected(
        data.kind,
        model.answer,
        model.test.inputs,
        model.test.label,
        model.declared.directions,
        data.labels,
        limits.direction.tolerance * model.scale,
        subject.generator(model),
    )
    return direction.judge("M9", violations, limits.direction, limits.examples)


def calibrated(model: Subject, losses: Losses) -> Verdict:
    kind, limits = model.settings.data.kind, model.settings.evaluation.calibration
    raw, label = model.raw["test"], model.test.label
    return calibration.judge(kind, raw, label, model.rule, limits, model.scale)


def confident(model: Subject, losses: Losses) -> Verdict:
    kind, limits = model.settings.data.kind, model.settings.evaluation.confidence
    raw, label, rows = model.raw["test"], model.test.label, len(model.splits["calibration"])
    return confidence.judge(kind, raw, label, model.rule, limits, model.scale, rows)


def sliced(model: Subject, losses: Losses) -> Verdict:
    declared, limits = model.declared, model.settings.evaluation.slices
    masks, columns = declared.slices(model.test), declared.columns(model.test)
    return slices.judge(losses[model.candidate.name], masks, columns, model.embedding, limits)


METHODS = (metrics, costs, compared, robustness, invariance, directions)
METHODS += (calibrated, confident, sliced)


def explain(model: Subject) -> Any:
    """M5: attributions of the test rows."""
    from . import attribution

    return attribution.explain(model)


def simple_answers(
    splits: dict[str, Examples], settings: Settings
) -> dict[str, dict[str, Answers]]:
    """Answers of the baselines that need no stored model, by baseline and split."""
    kind, train, answers = settings.data.kind, splits["train"], {}
    for name, baseline in baselines.simple_baselines(kind).items():
        model = baseline.fit(train.inputs, train.label)
        answers[name] = {
            split: kinds.of(kind).decide(model.predict(examples.inputs), Rule())
            for split, examples in splits.items()
        }
    return answers


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
    losses = {name: model.losses() for name, model in models.items()}
    name, why = comparison.select(losses, operations, kind, settings.evaluation.comparison.alpha)
    answers = {n: {split: m.answers(split) for split in splits} for n, m in models.items()}
    for simple, by_split in simple_answers(splits, settings).items():
        answers[simple] = by_split
        losses[simple] = functions.row_losses(by_split["test"], test.label, scale)
    scores: dict[str, dict[str, dict[str, float]]] = {n: {} for n in answers}
    for n, by_split in answers.items():
        for split, given in by_split.items():
            scores[n][split] = functions.metrics(given, splits[split].label)
    said = {"candidate": name, "selection": why, "metrics": scores, "operations": operations}
    return models[name], said, losses


def judge(model: Subject, losses: Losses) -> tuple[list[Verdict], dict[str, float]]:
    """One verdict per method, and the seconds that each took."""
    verdicts, seconds = [], {}
    for method in METHODS:
        started = time.perf_counter()
        verdict = method(model, losses)
        verdicts.append(verdict)
        seconds[verdict.method] = time.perf_counter() - started
    return verdicts, seconds


def overall(verdicts: list[Verdict]) -> str:
    outcomes = [verdict.outcome for verdict in verdicts]
    worst = [word for word in ("fail", "cannot tell") if word in outcomes]
    return worst[0] if worst else "pass"


def content(
    model: Subject, models: dict[str, Any], verdicts: list[Verdict], explanation: Any
) -> dict[str, Any]:
    """reports/evaluation.json: without times, so that the same model gives the same bytes."""
    confusion = model.functions.confusion(model.answers(), model.test.label)
    record = {
        "provenance": stamp(model.settings, "evaluate"),
        "kind": model.settings.data.kind,
        "verdict": overall(verdicts),
        "methods": {v.method: v.record() for v in verdicts},
        "decision": model.rule.model_dump(),
        "label_scale": model.scale,
        "confusion": None if confusion is None else confusion.tolist(),
        **models,
    }
    return record | ({"explanation": explanation.record()} if explanation else {})


def timing(model: Subject, seconds: dict[str, float]) -> dict[str, Any]:
    """Seconds of each method, and their sum as a multiple of the time that plain answers on the
    test rows take.
    """
    times = []
    for _ in range(5):
        started = time.perf_counter()
        model.candidate.outputs(model.test.inputs)
        times.append(time.perf_counter() - started)
    inference, total = statistics.median(times), sum(seconds.values())
    multiple = total / inference
    return {"seconds": seconds, "inference": inference, "total": total, "multiple": multiple}


def record(settings: Settings, content: dict[str, Any], spent: dict[str, Any]) -> None:
    """To the tracking run."""
    reports = settings.paths.reports
    with tracking.current(settings, "evaluate") as run:
        run.metrics(tracking.flatten(content["metrics"][content["candidate"]]))
        numbers = {
            f"{name}.{verdict['title'].lower()}": verdict["number"]
            for name, verdict in content["methods"].items()
            if verdict["number"] is not None
        }
        run.metrics(numbers, "gate.")
        times = {"seconds": spent["total"], "multiple": spent["multiple"]}
        run.metrics(times, "evaluation.")
        run.tags({"stage.evaluate": content["verdict"], "selection": content["selection"]})
        files = ("evaluation.json", "evaluation.html", "losses.parquet", "plots")
        run.artifacts([reports / name for name in files], "evaluation")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes reports/evaluation.json, .html, losses.parquet and plots/; exit 0 whatever the
    verdict.
    """
    from . import plots, report

    with logs.stage("evaluate") as log:
        reports = settings.paths.reports
        model, models, losses = choose(settings)
        verdicts, seconds = judge(model, losses)
        started = time.perf_counter()
        explanation = explain(model) if EXPLAINS else None
        seconds["M5"] = time.perf_counter() - started
        made, spent = content(model, models, verdicts, explanation), timing(model, seconds)
        shutil.rmtree(reports / "plots", ignore_errors=True)
        files = plots.draw_all(model, made, explanation, reports / "plots")
        write_json(reports / "evaluation.json", made)
        rows = model.test.rows[["id", "content", "label"]].reset_index(drop=True)
        rows.assign(**losses).to_parquet(reports / "losses.parquet", index=False)
        report.write(made, spent, files, settings, reports / "evaluation.html")
        record(settings, made, spent)
        report.print_gate(made, spent)
        log.info("%s; verdict: %s", made["selection"], made["verdict"])
    return 0

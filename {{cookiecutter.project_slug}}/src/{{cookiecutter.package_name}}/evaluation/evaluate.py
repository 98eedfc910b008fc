"""Runs the quality methods on the candidates and writes one report; `promote` decides on what
stands there.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import logs, tracking
from ..data.datamodule import label_scale, load
from ..modeling import baselines, kinds
from ..modeling.candidates import Candidate, NetworkCandidate
from ..modeling.candidates import load as load_candidates
from ..modeling.kinds.classes import confusion
from ..provenance import stamp, write_json
from ..settings import LOWER_IS_BETTER, Kind, Settings
from ..task import behaviour
from ..task.features import Features
from ..types import Answers, Behaviour, Decisions, Examples, Inputs, Rule
from . import (
    attribution,
    calibration,
    comparison,
    confidence,
    cost,
    direction,
    invariance,
    perturbation,
    slices,
)
from .verdict import Verdict, outcome

SPLITS = ("train", "val", "calibration", "test")
Losses = dict[str, NDArray[np.floating]]


@dataclass(frozen=True)
class Scored:
    """A candidate with what it says on each split, and the rule that turns that into answers."""

    candidate: Candidate
    raw: dict[str, NDArray[np.float32]]
    embedding: NDArray[np.float32] | None
    rule: Rule

    def losses(self, kind: Kind, label: NDArray[Any], scale: float) -> NDArray[np.floating]:
        """Loss per test row [n] of the most probable answers: costs move them on purpose."""
        return kinds.of(kind).row_losses(
            kinds.of(kind).decide(self.raw["test"], self.rule.without_costs()), label, scale
        )


@dataclass(frozen=True)
class Judged:
    """The report as plain data; and what drawing it needs beyond."""

    content: dict[str, Any]
    chosen: Scored
    splits: dict[str, Examples]
    declared: Behaviour
    losses: Losses
    explained: attribution.Attributions
    timing: dict[str, Any] = field(default_factory=dict)


def score(
    candidate: Candidate, splits: dict[str, Examples], settings: Settings, scale: float
) -> Scored:
    """Raw outputs per split; temperature, costs and abstention from validation, sets from
    calibration data.
    """
    kind, outputs = (
        settings.data.kind,
        {name: candidate.outputs(e.inputs) for name, e in splits.items()},
    )
    raw = {name: o.raw for name, o in outputs.items()}
    temperature = calibration.fit_temperature(kind, raw["val"], splits["val"].label)
    costs = cost.fit(kind, settings.data.goal.costs, raw["val"], splits["val"].label, temperature)
    rule = confidence.fit(
        kind,
        Rule(temperature=temperature, **costs),
        (raw["val"], splits["val"].label),
        (raw["calibration"], splits["calibration"].label),
        settings.evaluation.confidence,
        scale,
    )
    return Scored(candidate, raw, outputs["test"].embedding, rule)


def goal(metrics: dict[str, float], settings: Settings) -> Verdict:
    """M3: the project's own metric against its bound."""
    wanted = settings.data.goal
    found, lower = metrics[wanted.metric], wanted.metric in LOWER_IS_BETTER
    bound = wanted.at_most if lower else wanted.at_least
    assert bound is not None
    passed = found <= bound if lower else found >= bound
    words = f"test {wanted.metric} {found:.4f}"
    return Verdict(
        "M3", "Metrics", outcome(passed), round(found, 4), bound, words, {"lower_is_better": lower}
    )


def judge(
    chosen: Scored, losses: Losses, splits: dict[str, Examples], settings: Settings, scale: float
) -> tuple[list[Verdict], dict[str, float], Behaviour]:
    """One verdict per method, the seconds that each took, and the declarations that were judged."""
    limits, kind, test, rule = settings.evaluation, settings.data.kind, splits["test"], chosen.rule
    raw, candidate, declared = (
        chosen.raw["test"],
        chosen.candidate,
        behaviour.declare(settings.data),
    )
    answers = kinds.of(kind).decide(raw, rule)

    def answer(inputs: Inputs) -> Answers:
        return kinds.of(kind).decide(candidate.outputs(inputs).raw, rule.without_costs())

    methods: dict[str, Callable[[], Verdict]] = {
        "M3": lambda: goal(kinds.of(kind).metrics(answers, test.label), settings),
        "M4": lambda: cost.judge(kind, settings.data.goal.costs, answers, test.label, limits.cost),
        "M6": lambda: comparison.judge(losses, candidate.name, kind, limits.comparison),
        "M7": lambda: _robustness(candidate, answer, declared, test, settings, scale),
        "M8": lambda: invariance.judge(
            invariance.violations(
                answer, test.inputs, declared.invariances, limits.invariance.tolerance * scale
            ),
            limits.invariance,
            limits.examples,
        ),
        "M9": lambda: direction.judge(
            direction.violations(
                answer,
                test.inputs,
                test.label,
                declared.directions,
                settings.data.labels,
                limits.direction.tolerance * scale,
                np.random.default_rng(settings.seed),
            ),
            limits.direction,
            limits.examples,
        ),
        "M10": lambda: calibration.judge(kind, raw, test.label, rule, limits.calibration, scale),
        "M11": lambda: confidence.judge(
            kind, raw, test.label, rule, limits.confidence, scale, len(splits["calibration"])
        ),
        "M12": lambda: slices.judge(
            losses[candidate.name],
            declared.slices(test),
            declared.columns(test),
            chosen.embedding,
            limits.slices,
        ),
    }
    verdicts, seconds = [], {}
    for name, method in methods.items():
        started = time.perf_counter()
        verdicts.append(method())
        seconds[name] = time.perf_counter() - started
    return verdicts, seconds, declared


def _robustness(
    candidate: Candidate,
    answer: Callable[[Inputs], Answers],
    declared: Behaviour,
    test: Examples,
    settings: Settings,
    scale: float,
) -> Verdict:
    limits, rng = settings.evaluation.perturbation, np.random.default_rng(settings.seed)

    def score(inputs: Inputs) -> float:
        return float(
            1 - kinds.of(settings.data.kind).row_losses(answer(inputs), test.label, scale).mean()
        )

    attacked = {}
    if isinstance(candidate, NetworkCandidate) and declared.ranges:
        for name, steps in {"FGSM": 1, "PGD": limits.steps}.items():
            moved = perturbation.attack(
                candidate.network,
                settings.data.kind,
                test.inputs,
                test.label,
                declared.ranges,
                limits.epsilon,
                steps,
            )
            attacked[name] = score(moved)
    found = perturbation.curves(score, test.inputs, declared.perturbations, rng)
    return perturbation.judge(score(test.inputs), found, attacked, limits)


def simple_answers(
    splits: dict[str, Examples], settings: Settings
) -> dict[str, dict[str, Answers]]:
    """Answers of the baselines that need no stored model, by baseline and split."""
    kind, train = settings.data.kind, splits["train"]
    fitted = {
        n: b.fit(train.inputs, train.label) for n, b in baselines.simple_baselines(kind).items()
    }
    return {
        n: {s: kinds.of(kind).decide(b.predict(e.inputs), Rule()) for s, e in splits.items()}
        for n, b in fitted.items()
    }


def assess(settings: Settings) -> Judged:
    """Scores and compares the candidates, and judges the better one."""
    splits, scale, kind = (
        {name: load(settings, name) for name in SPLITS},
        label_scale(settings),
        settings.data.kind,
    )
    scored = {
        name: score(c, splits, settings, scale) for name, c in load_candidates(settings).items()
    }
    answers = {
        n: {k: kinds.of(kind).decide(x, s.rule) for k, x in s.raw.items()}
        for n, s in scored.items()
    }
    test = splits["test"]
    operations = {name: s.candidate.operations(test.inputs) for name, s in scored.items()}
    losses = {n: s.losses(kind, test.label, scale) for n, s in scored.items()}
    name, why = comparison.select(losses, operations, kind, settings.evaluation.comparison.alpha)
    simple = simple_answers(splits, settings)
    losses |= {
        n: kinds.of(kind).row_losses(a["test"], test.label, scale) for n, a in simple.items()
    }
    answers, chosen = answers | simple, scored[name]
    verdicts, seconds, declared = judge(chosen, losses, splits, settings, scale)
    outcomes, decisions = {v.outcome for v in verdicts}, answers[name]["test"]
    started = time.perf_counter()
    of = Features.model_validate(settings.data.features)
    explained = attribution.explain(
        chosen.candidate, splits["train"].inputs, test.inputs, decisions, of
    )
    seconds["M5"] = time.perf_counter() - started
    content = {
        "provenance": stamp(settings, "evaluate"),
        "kind": kind,
        "candidate": name,
        "selection": why,
        "verdict": "fail"
        if "fail" in outcomes
        else ("cannot tell" if "cannot tell" in outcomes else "pass"),
        "methods": {v.method: v.record() for v in verdicts},
        "metrics": {
            n: {k: kinds.of(kind).metrics(a, splits[k].label) for k, a in by.items()}
            for n, by in answers.items()
        },
        "decision": chosen.rule.model_dump(),
        "label_scale": scale,
        "confusion": confusion(decisions, test.label).tolist()
        if isinstance(decisions, Decisions)
        else None,
        "operations": operations,
        "explanation": explained.record(),
    }
    return Judged(
        content,
        chosen,
        splits,
        declared,
        losses,
        explained,
        timing(chosen.candidate, test, seconds),
    )


def timing(candidate: Candidate, test: Examples, seconds: dict[str, float]) -> dict[str, Any]:
    """Seconds of each method, and their sum as a multiple of the time that plain answers on the
    test rows take.
    """
    times = []
    for _ in range(5):
        started = time.perf_counter()
        candidate.outputs(test.inputs)
        times.append(time.perf_counter() - started)
    inference, total = statistics.median(times), sum(seconds.values())
    return {
        "seconds": seconds,
        "inference": inference,
        "total": total,
        "multiple": total / inference,
    }


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes reports/evaluation.json, .html, losses.parquet and plots/; exit 0 whatever the
    verdict.
    """
    from . import plots, report

    with logs.stage("evaluate") as log:
        judged, reports = assess(settings), settings.paths.reports
        content = judged.content
        shutil.rmtree(reports / "plots", ignore_errors=True)
        drawn = plots.draw_all(judged, settings, reports / "plots")
        write_json(
            reports / "evaluation.json", content
        )  # without times: the same model gives the same bytes
        rows = judged.splits["test"].rows[["id", "content", "label"]].reset_index(drop=True)
        rows.assign(**judged.losses).to_parquet(reports / "losses.parquet", index=False)
        report.write(
            {**content, "timing": judged.timing}, drawn, settings, reports / "evaluation.html"
        )
        with tracking.current(settings, "evaluate") as record:
            record.metrics(tracking.flatten(content["metrics"][content["candidate"]]))
            numbers = {m: (v["title"].lower(), v["number"]) for m, v in content["methods"].items()}
            record.metrics(
                {f"{m}.{title}": n for m, (title, n) in numbers.items() if n is not None}, "gate."
            )
            spent = {k: judged.timing[k] for k in ("total", "multiple")}
            record.metrics(
                {"evaluation.seconds": spent["total"], "evaluation.multiple": spent["multiple"]}
            )
            record.tags({"stage.evaluate": content["verdict"], "selection": content["selection"]})
            files = ("evaluation.json", "evaluation.html", "losses.parquet", "plots")
            record.artifacts([reports / name for name in files], "evaluation")
        report.table({**content, "timing": judged.timing})
        log.info("%s; verdict: %s", content["selection"], content["verdict"])
    return 0

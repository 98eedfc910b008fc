"""Runs the seven quality methods on the candidates and writes one report; `promote` decides on what stands there."""

import argparse
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import logs
from ..data.datamodule import Examples, load
from ..experiments import tracking
from ..modeling import baselines
from ..modeling.candidates import Candidate, NetworkCandidate
from ..modeling.candidates import load as load_candidates
from ..modeling.metrics import confusion, evaluate
from ..modeling.predictions import Decisions, decide, softmax
from ..provenance import stamp, write_json
from ..settings import Settings
from . import behaviour, calibration, comparison, confidence, direction, invariance, perturbation, plots, report, slices
from .verdict import Verdict, outcome

SPLITS = ("train", "val", "calibration", "test")


@dataclass(frozen=True)
class Scored:
    """A candidate with what it says on each split and the decision rule fitted on validation and calibration data."""

    candidate: Candidate
    logits: dict[str, NDArray[np.float32]]
    temperature: float
    abstain_below: float
    conformal_quantile: float

    def decisions(self, logits: NDArray[np.float32]) -> Decisions:
        return decide(logits, self.temperature, self.abstain_below, self.conformal_quantile)


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond the settings."""


def score(candidate: Candidate, splits: dict[str, Examples], settings: Settings) -> Scored:
    """Raw outputs per split; temperature and abstention from validation, conformal quantile from calibration data."""
    logits = {name: candidate.outputs(e.inputs).logits for name, e in splits.items()}
    temperature = calibration.fit_temperature(logits["val"], splits["val"].label)
    on_val, on_calibration = softmax(logits["val"], temperature), softmax(logits["calibration"], temperature)
    right = on_val.argmax(axis=1) == splits["val"].label
    limits = settings.evaluation.confidence
    threshold = confidence.abstention_threshold(on_val.max(axis=1), right, limits.target_error)
    quantile = confidence.conformal_quantile(on_calibration, splits["calibration"].label, limits.alpha)
    return Scored(candidate, logits, temperature, threshold, quantile)


def judge(
    chosen: Scored, correct: dict[str, NDArray[np.bool_]], splits: dict[str, Examples], settings: Settings
) -> list[Verdict]:
    """One verdict per method, and the floor of the primary metric."""
    limits, test, candidate = settings.evaluation, splits["test"], chosen.candidate
    rng = np.random.default_rng(settings.seed)
    decisions = chosen.decisions(chosen.logits["test"])

    def probabilities(inputs: dict[str, Any]) -> NDArray[np.floating]:
        return softmax(candidate.outputs(inputs).logits, chosen.temperature)

    def predict(inputs: dict[str, Any]) -> NDArray[np.int64]:
        return np.asarray(probabilities(inputs).argmax(axis=1), dtype=np.int64)

    attacked: dict[str, float] = {}
    if isinstance(candidate, NetworkCandidate):
        for name, steps in {"FGSM": 1, "PGD": limits.perturbation.steps}.items():
            moved = perturbation.attack(
                candidate.network, test.inputs, test.label, behaviour.SCALE, limits.perturbation.epsilon, steps
            )
            attacked[name] = float((predict(moved) == test.label).mean())
    curves = perturbation.curves(predict, test.inputs, test.label, behaviour.PERTURBATIONS, rng)
    masks = {f"class {name}": test.label == i for i, name in enumerate(settings.data.labels)} | behaviour.slices(
        test.inputs
    )
    right = decisions.label == test.label
    primary = evaluate(settings.data.kind, decisions.probabilities, test.label)[limits.primary_metric]
    return [
        Verdict(
            "M3",
            "Metrics",
            outcome(primary >= limits.min_primary),
            round(primary, 4),
            limits.min_primary,
            f"test {limits.primary_metric} {primary:.4f}",
        ),
        comparison.judge(correct, candidate.name, limits.comparison),
        perturbation.judge(float(right.mean()), curves, attacked, limits.perturbation),
        invariance.judge(
            invariance.violations(predict, test.inputs, behaviour.INVARIANCES), limits.invariance, limits.examples
        ),
        direction.judge(
            direction.violations(probabilities, test.inputs, test.label, behaviour.DIRECTIONS, rng),
            limits.direction,
            limits.examples,
        ),
        calibration.judge(chosen.logits["test"], test.label, chosen.temperature, limits.calibration),
        confidence.judge(decisions, test.label, limits.confidence),
        slices.judge(right, masks, limits.slices),
    ]


def simple_answers(splits: dict[str, Examples]) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Predicted classes of the baselines that need no stored model, by baseline and split."""
    fitted = {n: b.fit(splits["train"].inputs, splits["train"].label) for n, b in baselines.simple_baselines().items()}
    return {name: {s: b.predict(e.inputs) for s, e in splits.items()} for name, b in fitted.items()}


def assess(settings: Settings) -> tuple[dict[str, Any], Scored, dict[str, Examples]]:
    """The whole report as plain data, the chosen candidate and the splits."""
    splits = {name: load(settings, name) for name in SPLITS}
    scored = {name: score(c, splits, settings) for name, c in load_candidates(settings).items()}
    simple, label = simple_answers(splits), splits["test"].label
    correct = {name: s.logits["test"].argmax(axis=1) == label for name, s in scored.items()}
    sizes = {name: s.candidate.num_parameters for name, s in scored.items()}
    name, why = comparison.select(correct, sizes, settings.evaluation.comparison.alpha)
    correct |= {n: answers["test"] == label for n, answers in simple.items()}
    verdicts = judge(scored[name], correct, splits, settings)
    kind, one_hot = settings.data.kind, np.eye(len(settings.data.labels))
    metrics = {
        n: {k: evaluate(kind, softmax(x, s.temperature), splits[k].label) for k, x in s.logits.items()}
        for n, s in scored.items()
    }
    metrics |= {
        n: {k: evaluate(kind, one_hot[a], splits[k].label) for k, a in answers.items()} for n, answers in simple.items()
    }
    chosen = scored[name]
    outcomes = {v.outcome for v in verdicts}
    content = {
        "provenance": stamp(settings, "evaluate"),
        "candidate": name,
        "selection": why,
        "verdict": "fail" if "fail" in outcomes else ("cannot tell" if "cannot tell" in outcomes else "pass"),
        "methods": {v.method: v.record() for v in verdicts},
        "metrics": metrics,
        "decision": {
            "temperature": chosen.temperature,
            "abstain_below": chosen.abstain_below,
            "conformal_quantile": chosen.conformal_quantile,
        },
        "confusion": confusion(softmax(chosen.logits["test"]), label).tolist(),
        "num_parameters": sizes,
    }
    return content, chosen, splits


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Writes reports/evaluation.json, .html and plots/; exit 0 whatever the verdict, which `promote` acts on."""
    with logs.stage("evaluate") as log:
        content, chosen, splits = assess(settings)
        reports = settings.paths.reports
        shutil.rmtree(reports / "plots", ignore_errors=True)
        drawn = plots.draw_all(
            content, chosen.decisions(chosen.logits["test"]), splits["test"], settings, reports / "plots"
        )
        write_json(reports / "evaluation.json", content)
        report.write(content, drawn, settings, reports / "evaluation.html")
        record = tracking.current(settings, "evaluate")
        record.metrics(tracking.flatten(content["metrics"][content["candidate"]]))
        record.metrics(
            {
                f"{m}.{v['title'].lower()}": v["number"]
                for m, v in content["methods"].items()
                if v["number"] is not None
            },
            "gate.",
        )
        record.tags({"stage.evaluate": content["verdict"], "selection": content["selection"]})
        record.artifacts([reports / "evaluation.json", reports / "evaluation.html", reports / "plots"], "evaluation")
        report.table(content)
        log.info("%s; verdict: %s", content["selection"], content["verdict"])
    return 0

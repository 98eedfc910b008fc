"""Runs in a trained project: judges its network, and the same network damaged on purpose in one way at a time.

python gate.py <task>     prints {name: {"meant": method, "outcomes": {method: [outcome, number, why]}}} as JSON
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from my_model import params
from my_model.data import datamodule
from my_model.evaluation import comparison, evaluate, subject
from my_model.modeling import baselines, candidates, kinds
from my_model.types import Examples, Rule
from torch import nn

Splits = dict[str, Examples]


def same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Damage:
    """What is done to a network that passes, and the method that must refuse it.

    `network` gives the damaged network (of the settings and the splits); `splits` changes the labels that it is judged
    by; `raw` changes its outputs after the rule was fitted, as a head that was altered later would; `rule` the rule.
    """

    method: str
    network: Callable[[nn.Module, Any, Splits], nn.Module] = lambda network, settings, splits: network
    splits: Callable[[Splits], Splits] = same
    raw: Callable[[np.ndarray], np.ndarray] = same
    rule: Callable[[Any], Any] = same


class After(nn.Module):
    """A network whose raw outputs are changed by a function of them and of its inputs."""

    def __init__(self, network: nn.Module, change: Callable[[Any, dict[str, Any]], Any]) -> None:
        super().__init__()
        self.network, self.change = network, change

    def forward(self, **inputs: Any) -> tuple[Any, Any]:
        raw, embedding = self.network(**inputs)
        return self.change(raw, inputs), embedding


class Altered(candidates.NetworkCandidate):
    """A candidate whose outputs are changed after its rule was fitted."""

    change: Callable[[np.ndarray], np.ndarray]

    def outputs(self, inputs: Any) -> Any:
        found = super().outputs(inputs)
        return candidates.Outputs(type(self).change(found.raw).astype(np.float32), found.embedding)


def judged(settings: Any, network: nn.Module, damage: Damage, splits: Splits, champion: Any) -> dict[str, Any]:
    """Outcome, number and reason of each method, with the champion's comparison as a part of M6."""
    kind, splits = settings.data.kind, damage.splits(splits)
    scale = float(splits["train"].label.std()) if kind == "regression" else 1.0
    damaged = damage.network(network, settings, splits).eval()
    model = subject.fit(candidates.NetworkCandidate(damaged), splits, settings, scale)
    if damage.raw is not same:
        altered = type("Damaged", (Altered,), {"change": staticmethod(damage.raw)})(damaged)
        model = replace(model, candidate=altered, raw={n: altered.outputs(e.inputs).raw for n, e in splits.items()})
    model, test = replace(model, rule=damage.rule(model.rule)), splits["test"]
    losses = {"network": model.losses(test.inputs, test.label)}
    train, functions = splits["train"], kinds.of(kind)
    rows = baselines.with_all_classes(train.inputs, train.label, settings.data.labels)
    for name, baseline in baselines.simple_baselines(kind).items():
        answers = functions.decide(baseline.fit(*rows).predict(test.inputs), Rule())
        losses[name] = functions.row_losses(answers, test.label, scale)
    found = {v.method: [v.outcome, v.number, v.why] for v in evaluate.judge(model, losses)}
    before = subject.fit(candidates.NetworkCandidate(champion), splits, settings, scale)
    limits = settings.evaluation.comparison
    against = comparison.paired(losses["network"], before.losses(test.inputs, test.label), kind, limits.alpha)
    found["champion"] = [comparison.non_inferior(against, limits.margin), against.difference, "against the champion"]
    return found


def main() -> None:
    path = Path(__file__).parent / "tasks" / f"damage_{sys.argv[1]}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    task = importlib.util.module_from_spec(spec)
    sys.modules["gate"] = sys.modules["__main__"]
    spec.loader.exec_module(task)
    settings = params.load(sys.argv[2:])
    splits = {name: datamodule.load(settings, name) for name in evaluate.SPLITS}
    champion = candidates.load(settings)["network"].network
    found = {}
    for name, damage in task.damages(settings, splits, champion).items():
        found[name] = {"meant": damage.method, "outcomes": judged(settings, champion, damage, splits, champion)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

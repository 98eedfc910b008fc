"""M7 to M9 on models small enough to know their answer."""

from typing import Any

import numpy as np
import pytest
import torch
from harness import Project, module
from kinds import having

perturbation, direction = (module(f"evaluation.{n}") for n in ("perturbation", "direction"))
kinds, types = module("modeling.kinds"), module("types")


class Linear(torch.nn.Module):
    """Raw outputs [n, 2] of inputs x [n, 3]: for classes the logits 0 and w·x, for values w·x and
    0.
    """

    weights = torch.tensor([1.0, -2.0, 0.0])

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor, fixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        score = x @ self.weights + 0 * fixed.sum()
        parts = [score, 0 * score] if self.kind == "regression" else [0 * score, score]
        return torch.stack(parts, dim=1), x


@pytest.mark.row("M7")
@having("binary", "regression")
@pytest.mark.parametrize("steps", [1, 5])
def test_an_attack_moves_a_linear_model_to_the_corner_of_its_ball(kind: str, steps: int) -> None:
    inputs = {"x": np.full((4, 3), 0.5, np.float32), "fixed": np.ones((4, 1), np.float32)}
    label = np.array([0, 1, 0, 1]) if kind == "binary" else np.array([-9, 9, -9, 9], np.float32)
    ranges = {"x": (np.zeros(3), np.array([1.0, 10.0, 1.0]))}
    moved = perturbation.attack(Linear(kind), kind, inputs, label, ranges, 0.1, steps)
    # Up for rows whose truth is low, down for the others; a share of each column's own range; no
    # gradient, no move.
    sign = np.where(label > 0, -1, 1)[:, None]
    expected = 0.5 + sign * np.array([0.1, -1.0, 0.0])
    assert moved["x"] == pytest.approx(np.clip(expected, 0, [1.0, 10.0, 1.0]), abs=1e-6)
    assert moved["fixed"] is inputs["fixed"]


@pytest.mark.row("M7")
def test_the_curves_hold_the_score_at_each_severity() -> None:
    inputs = {"x": np.zeros(10)}
    found = perturbation.curves(
        lambda i: 1 - float(i["x"].mean()),
        inputs,
        {"a": lambda i, s, _: {"x": i["x"] + s / 10}},
        np.random.default_rng(0),
    )
    assert found["a"] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])


@pytest.mark.row("M7")
def test_a_brittle_model_is_refused(project: Project) -> None:
    limits = project.settings().evaluation.perturbation
    steady, falling = {"a": [0.8] * 5}, {"a": [0.8, 0.3, 0.1, 0.1, 0.1]}
    assert perturbation.judge(0.8, steady, {"PGD": 0.7}, limits).outcome == "pass"
    assert perturbation.judge(0.8, falling, {"PGD": 0.7}, limits).outcome == "fail"
    assert perturbation.judge(0.8, steady, {"PGD": 0.01}, limits).outcome == "fail"
    assert "not applicable" in perturbation.judge(0.8, steady, {}, limits).why
    assert perturbation.judge(0.8, {}, {}, limits).outcome == "not applicable"


def classes(score: Any) -> Any:
    return kinds.of("binary").decide(np.stack([0 * score, score], axis=1), types.Rule())


@pytest.mark.row("M8")
def test_invariance_counts_the_answers_that_change(project: Project) -> None:
    inputs = {"x": np.arange(10.0)}
    changes = {"shift": lambda i: {"x": i["x"] + 1}, "none": dict}
    found = direction.altered("binary", lambda i: classes(i["x"] - 4.5), inputs, changes, 0.0)
    assert found["shift"].tolist() == [False] * 4 + [True] + [False] * 5 and not found["none"].any()
    judged = direction.judge("M8", found, project.settings().evaluation.invariance, 5)
    assert (judged.outcome, judged.number, judged.details["violating_rows"]["shift"]) == (
        "fail",
        0.1,
        [4],
    )
    assert (
        direction.judge("M8", {}, project.settings().evaluation.invariance, 5).outcome
        == "not applicable"
    )


@pytest.mark.row("M9")
@pytest.mark.parametrize(("sign", "outcome"), [(1, "pass"), (-1, "fail")])
def test_direction_finds_a_model_that_moves_the_wrong_way(
    sign: int, outcome: str, project: Project
) -> None:
    rng, label = np.random.default_rng(5), np.arange(40) % 2
    limits, inputs = project.settings().evaluation.direction, {"x": label - 0.5}

    def blend(share: float) -> Any:
        return lambda a, b: {"x": (1 - share) * a["x"] + share * b["x"]}

    of_partner = {"more of the partner": types.Direction(blend(0.3), blend(0.7))}
    found = direction.misdirected(
        "binary", lambda i: classes(sign * i["x"]), inputs, label, of_partner, ["a", "b"], 0.0, rng
    )
    assert direction.judge("M9", found, limits, 3).outcome == outcome
    up = types.Direction(lambda a, b: a, lambda a, b: {"x": a["x"] + 1}, label="b")
    found = direction.misdirected(
        "binary", lambda i: classes(sign * i["x"]), inputs, label, {"up": up}, ["a", "b"], 0.0, rng
    )
    assert direction.judge("M9", found, limits, 3).outcome == outcome
    assert direction.judge("M9", {}, limits, 3).outcome == "not applicable"


@pytest.mark.row("M9")
def test_partners_have_another_label() -> None:
    label = np.array([0] * 90 + [1] * 10)
    assert (label[direction.partners(label, np.random.default_rng(0))] != label).all()

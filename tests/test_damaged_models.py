"""For each method of the gate, a model damaged on purpose that it alone refuses, at the shipped thresholds."""

import json
from typing import Any

import pytest
from conftest import ROOT, Project

pytestmark = [pytest.mark.slow, pytest.mark.deep]
METHODS = {"M6", "M7", "M8", "M9", "M10", "M11", "M12"}


@pytest.fixture(scope="module")
def judged(trained: Project) -> Any:
    """What tests/gate.py finds: damage to the method meant, and to the outcome of each method."""
    done = trained.python(ROOT / "tests" / "gate.py", trained.task.name)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_good_model_passes_every_method(judged: Any) -> None:
    outcomes = judged["good"]["outcomes"]
    assert {method: why for method, (outcome, _, why) in outcomes.items() if outcome != "pass"} == {}


def test_every_method_has_its_damage(judged: Any) -> None:
    assert {damage["meant"].replace("champion", "M6") for damage in judged.values()} == METHODS | {"none"}


def test_each_damage_is_refused_by_its_method_and_by_no_other(judged: Any, trained: Project) -> None:
    """A comparison with the champion, which is a part of M6, counts where it is meant: there is none at first."""
    allowed = {"champion"} | trained.task.entangled
    for name, damage in judged.items():
        outcomes, meant = damage["outcomes"], damage["meant"]
        if meant == "none":
            continue
        assert outcomes[meant][0] == "fail", (name, outcomes[meant])
        others = {m: o for m, o in outcomes.items() if m not in {meant, *allowed} and o[0] == "fail"}
        assert others == {}, name

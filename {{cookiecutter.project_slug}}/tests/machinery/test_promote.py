from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from harness import NONE, Project, module

champions, promote, registry, rollback = (
    module(f"packaging.{n}") for n in ("champion", "promote", "registry", "rollback")
)
tracking, Verdict = module("tracking"), module("evaluation.verdict").Verdict


def evaluation(**outcomes: str) -> dict[str, Any]:
    rows: dict[str, Any] = {
        "title": "t",
        "why": "w",
        "number": None,
        "threshold": None,
        "details": {},
    }
    return {"methods": {m: {"method": m, "outcome": o, **rows} for m, o in outcomes.items()}}


def against(outcome: Any) -> Any:
    return Verdict("M6", "Against the champion", outcome, None, None, "w")


def packaged(outcome: str) -> dict[str, Any]:
    return {"verdicts": [{**evaluation(P2=outcome)["methods"]["P2"], "title": "parity"}]}


@pytest.mark.row("P3", "M6")
@pytest.mark.parametrize(
    ("outcomes", "champion", "override", "code", "said"),
    [
        ({"M6": "pass"}, None, None, 0, "first champion"),
        ({"M6": "pass"}, "pass", None, 0, "all gates passed"),
        ({"M6": "pass"}, "fail", None, 3, "M6 Against the champion"),
        ({"M6": "pass"}, "cannot tell", None, 4, "M6 Against the champion"),
        ({"M6": "cannot tell"}, None, None, 0, "no champion yet"),
        ({"M6": "cannot tell"}, "pass", None, 4, "M6 t: w"),
        ({"M6": "pass", "M9": "not applicable"}, "pass", None, 0, "all gates passed"),
        ({"M6": "pass", "M8": "fail"}, None, None, 3, "M8 t: w"),
        ({"M6": "cannot tell", "M8": "fail"}, "pass", None, 3, "M8 t: w"),
        ({"M6": "pass", "M8": "fail"}, None, "a written reason", 0, "override: a written reason"),
        ({"M6": "pass"}, "cannot tell", "a written reason", 0, "override: a written reason"),
        ({"M6": "pass"}, "pass", "not needed", 0, "all gates passed"),
    ],
)
def test_the_gate_decides(
    outcomes: dict[str, str], champion: str | None, override: str | None, code: int, said: str
) -> None:
    rows = promote.gate(
        evaluation(**outcomes), packaged("pass"), [against(champion)] if champion else [], None
    )
    decision = promote.decide(rows, champion is not None, override)
    assert promote.EXIT[decision.action] == code and said in decision.why[0]
    if decision.why[0].startswith("override"):
        assert len(decision.why) > 1  # what was overruled stands beside the reason


@pytest.mark.row("P3")
def test_what_was_rolled_back_and_a_failed_bundle_are_rows_of_the_gate() -> None:
    rows = promote.gate(evaluation(M6="pass"), packaged("fail"), [], "rolled back at noon")
    assert [(r["method"], r["outcome"]) for r in rows] == [
        ("M6", "pass"),
        ("P2", "fail"),
        ("P3", "fail"),
    ]
    assert promote.decide(rows, False, None).why == [
        "P2 parity: w",
        "P3 Rollback: rolled back at noon",
    ]


@pytest.mark.row("P3")
@pytest.mark.parametrize("reason", ["", "  ", "two\nlines"])
def test_an_override_needs_a_reason_on_one_line(reason: str, project: Project) -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        promote.run(project.settings(), Namespace(override=reason))


class Registry:
    """Versions and aliases in memory. A version is the set of test rows that its model answers
    wrongly.
    """

    def __init__(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, seed: int | None = None
    ) -> None:
        settings, self.aliases, self.num = project.settings(), dict[str, Any](), 600
        goal = settings.data.goal.model_copy(
            update={"metric": "accuracy", "at_least": 0.5, "at_most": None, "costs": None}
        )
        split = settings.data.split.model_copy(update={"key": "content"})
        classes = {"kind": "multiclass", "labels": ["a", "b", "c"], "goal": goal, "split": split}
        self.settings = settings.model_copy(
            update={"data": settings.data.model_copy(update=classes)}
        )
        config = {"seed": seed or settings.seed, "data": self.settings.data.model_dump(mode="json")}
        self.folder = project.folder / "bundle"
        self.folder.mkdir(exist_ok=True)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self.rows = pd.DataFrame({"content": [f"sha of {i}" for i in range(self.num)]})
        examples = module("data.datamodule").Examples({}, np.zeros(self.num, np.int64), self.rows)
        monkeypatch.setattr(champions, "load", lambda *_: examples)
        monkeypatch.setattr(champions, "label_scale", lambda _: 1.0)
        monkeypatch.setattr(registry, "by_alias", lambda _, name: self.aliases.get(name))
        monkeypatch.setattr(registry, "download", lambda _, version, folder: version.bundle)
        monkeypatch.setattr(champions, "losses", self.losses)

    def losses(self, bundle: Any, test: Any, scale: float) -> Any:
        assert len(test) == self.num and scale > 0
        if bundle.wrong is None:
            raise ValueError("it takes other inputs than the present code makes")
        return np.isin(np.arange(self.num), list(bundle.wrong)).astype(float)

    def version(self, number: int, wrong: Any, **card: Any) -> Any:
        card = {"kind": self.settings.data.kind, "labels": self.settings.data.labels, **card}
        bundle = SimpleNamespace(card=SimpleNamespace(**card), folder=self.folder, wrong=wrong)
        return SimpleNamespace(
            version=str(number), bundle=bundle, tags={"identity": f"{number:08d}"}
        )

    def ask(self, candidate: Any) -> list[Any]:
        found = champions.references(self.settings)
        return [
            champions.against(self.settings, candidate.bundle, role, v) for role, v in found.items()
        ]

    def promote(self, candidate: Any) -> int:
        """Decides as `promote` does, and moves the aliases as it does."""
        verdicts = self.ask(candidate)
        rows = promote.gate(evaluation(M6="pass"), packaged("pass"), verdicts, None)
        decision = promote.decide(rows, "champion" in self.aliases, None)
        if decision.action == "promote":
            best = champions.best_after(self.settings, candidate, verdicts)
            self.aliases |= {"champion": candidate, "best": best}
        return int(promote.EXIT[decision.action])


@pytest.mark.row("P3", "M6")
@pytest.mark.parametrize(
    ("mine", "its", "outcome"),
    [
        (range(20), range(20), "pass"),  # the same errors
        (range(20), range(10, 40), "pass"),  # better
        (range(22), range(18), "pass"),  # a little worse, well inside the margin of 2 %
        (range(28), range(18), "fail"),  # inside the margin, and yet surely worse
        (range(60), range(20), "fail"),
        (
            range(40),
            range(20, 58),
            "cannot tell",
        ),  # may be worse by more than the margin, or better
    ],
)
def test_a_candidate_is_judged_beside_the_champion(
    mine: range, its: range, outcome: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Registry(project, monkeypatch)
    fake.aliases["champion"] = fake.version(1, its)
    (verdict,) = fake.ask(fake.version(2, mine))
    assert (verdict.outcome, verdict.method, verdict.threshold) == (outcome, "M6", 0.02)
    assert verdict.details["difference"] == pytest.approx((len(mine) - len(its)) / fake.num)
    assert "version 1-00000001" in verdict.why and "interval" in verdict.why


@pytest.mark.row("P3")
@pytest.mark.parametrize(
    ("card", "wrong", "why"),
    [
        ({"labels": ["yes", "no"]}, (), "other labels"),
        ({"kind": "regression"}, (), "it is a regression model"),
        ({}, None, "it takes other inputs"),
    ],
)
def test_a_champion_that_answers_another_question_cannot_tell(
    card: dict[str, Any], wrong: Any, why: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Registry(project, monkeypatch)
    fake.aliases["champion"] = fake.version(1, wrong, **card)
    (verdict,) = fake.ask(fake.version(2, ()))
    assert verdict.outcome == "cannot tell" and why in verdict.why
    assert fake.promote(fake.version(2, ())) == 4 and fake.aliases["champion"].version == "1"


@pytest.mark.row("P3")
def test_rows_that_a_champion_of_another_split_may_have_learned_do_not_count(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Registry(project, monkeypatch, seed=1234)
    new = module("data.split").assign(fake.rows["content"], fake.settings.data.split, 1234) == 3
    assert 0.05 < new.mean() < 0.6
    # The champion knows by heart what it learned, and errs on what is new to it; the candidate is
    # the other way round.
    fake.aliases["champion"] = fake.version(1, np.flatnonzero(new)[:30])
    (verdict,) = fake.ask(fake.version(2, np.flatnonzero(~new)))
    assert (
        verdict.outcome == "pass"
        and f"on {new.sum()} test rows, those of {len(new)}" in verdict.why
    )
    assert verdict.details["difference"] == pytest.approx(-30 / new.sum())


@pytest.mark.row("P3", "M6")
def test_a_series_of_champions_cannot_lose_quality_step_by_step(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def series(fake: Registry) -> list[int]:
        return [fake.promote(fake.version(i + 1, range(20 + 3 * i))) for i in range(12)]

    fake = Registry(project, monkeypatch)
    assert series(fake)[:2] == [0, 0] and fake.aliases["best"].version == "1"
    lost = (len(fake.aliases["champion"].bundle.wrong) - 20) / fake.num
    assert 0 < lost <= fake.settings.evaluation.comparison.margin
    assert fake.promote(fake.version(20, range(5))) == 0 and fake.aliases["best"].version == "20"

    forgetful = Registry(project, monkeypatch)
    monkeypatch.setattr(champions, "best_after", lambda settings, promoted, verdicts: promoted)
    assert set(series(forgetful)) == {0}  # each step alone is within the margin


@pytest.mark.row("P3")
def test_an_overruled_best_model_is_the_measure_no_more(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Registry(project, monkeypatch)
    best, worse = fake.version(1, range(5)), fake.version(2, range(90))
    fake.aliases |= {"champion": best, "best": best}
    assert champions.best_after(fake.settings, worse, fake.ask(worse)) is worse


@pytest.fixture
def stubs(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes versions without a model in a real registry; gives the version that holds an alias."""
    settings = project.settings()
    made, name = tracking.client(settings), settings.tracking.registered_model
    run = tracking.start(settings, "train")
    made.create_registered_model(name)
    monkeypatch.setattr(module("packaging.pull"), "run", lambda *_: 0)
    tags = {"code": "c", "data": "d", "candidate": "network"}

    def make(number: int, previous: Any, best: int) -> Any:
        version = made.create_model_version(
            name, run.id, run.id, tags={**tags, "identity": f"{number:064d}"}
        )
        made.set_registered_model_alias(name, "champion", version.version)
        made.set_registered_model_alias(name, "best", str(best))
        registry.audit(settings, "promote", version, previous, ["a test"])
        return version

    return make


@pytest.mark.row("P3")
@pytest.mark.parametrize(("best", "after"), [(2, "1"), (1, "1")])
def test_what_is_rolled_back_is_the_measure_no_more(
    best: int, after: str, stubs: Callable[..., Any], project: Project
) -> None:
    first = stubs(1, None, 1)
    stubs(2, first, best)
    assert rollback.run(project.settings(), NONE) == 0
    found = (registry.by_alias(project.settings(), name).version for name in ("champion", "best"))
    assert tuple(map(str, found)) == ("1", after)

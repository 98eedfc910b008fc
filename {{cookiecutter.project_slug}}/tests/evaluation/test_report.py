from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from harness import Project, module

evaluate, panels, plots, report, predictions = (
    module(name)
    for name in (
        "evaluation.evaluate",
        "evaluation.panels",
        "evaluation.plots",
        "evaluation.report",
        "modeling.predictions",
    )
)


def verdict(
    method: str, outcome: str, number: float | None = 0.5, **details: Any
) -> dict[str, Any]:
    threshold = None if number is None else 0.4
    why = f"<why {method}>"
    return {
        "method": method,
        "title": f"Title {method}",
        "outcome": outcome,
        "number": number,
        "threshold": threshold,
        "why": why,
        "details": details,
    }


def content(**outcomes: str) -> dict[str, Any]:
    metrics = {
        n: {"test": {"accuracy": v, "rmse": 12.3}}
        for n, v in {"network": 0.9, "classical": 0.8}.items()
    }
    methods = {
        m: verdict(m, o, None if o == "not applicable" else 0.5) for m, o in outcomes.items()
    }
    return {
        "candidate": "network",
        "selection": "network is better than classical",
        "kind": "binary",
        "verdict": "fail",
        "methods": methods,
        "metrics": metrics,
        "provenance": {"code": "c" * 40, "data": "d" * 64},
        "explanation": {
            "method": "integrated gradients",
            "rows": 5,
            "importance": {},
            "unexplained": 0.01,
        },
        "timing": {"seconds": {"M7": 1.0}, "inference": 0.01, "total": 2.0, "multiple": 200.0},
    }


def settings(kind: str, labels: list[str]) -> Any:
    data = SimpleNamespace(
        kind=kind, labels=labels, name="things", goal=SimpleNamespace(metric="accuracy")
    )
    return SimpleNamespace(data=data, project=SimpleNamespace(name="<b>bold</b>", owner="me"))


@pytest.mark.row("M3", "M5")
def test_the_same_model_gives_the_same_charts_and_one_page(
    trained: Project, tmp_path: Path
) -> None:
    judged = evaluate.assess(trained.settings())
    first, second = (
        plots.draw_all(judged, trained.settings(), tmp_path / name) for name in ("a", "b")
    )
    assert {"M3", "M5", "M5 hardest", "M5 easiest", "M6", "M7", "M10", "M11", "M12"} <= set(first)
    for name, file in first.items():
        assert file.read_bytes() == second[name].read_bytes(), name
        assert b"Software" not in file.read_bytes()
    page = tmp_path / "page.html"
    report.write({**judged.content, "timing": judged.timing}, first, trained.settings(), page)
    text = page.read_text(encoding="utf-8")
    assert text.count("<img") == sum(file.suffix == ".png" for file in first.values())
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert all(f'id="{method}"' in text for method in judged.content["methods"])
    assert judged.content["explanation"]["method"] in text
    importance = list(judged.content["explanation"]["importance"].values())
    assert importance == sorted(importance, reverse=True) and importance[0] > 0


def test_the_summary_says_what_to_worry_about_and_what_was_not_examined() -> None:
    made = content(M3="pass", M7="fail", M10="cannot tell", M9="not applicable")
    purpose, good, worry, last = report.summary(made, settings("binary", ["no", "yes"]))
    assert "no and yes" in purpose and "90.0%" in good and "80.0%" in good
    assert (
        report.WORRIES["M7"] in worry and "<why M7>" in worry and report.WORRIES["M3"] not in worry
    )
    assert "Not decided: title m10." in worry and "Not examined: title m9." in worry
    assert last == report.VERDICTS["fail"]


def test_the_page_holds_every_verdict_and_escapes_what_users_wrote(tmp_path: Path) -> None:
    made = content(M3="pass", M7="fail", M10="cannot tell", M9="not applicable")
    report.write(made, {}, settings("binary", ["no", "yes"]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in ("pass", "fail", "cannot", "not"):
        assert f'<span class="badge {name}">' in text
    assert "&lt;b&gt;bold" in text and "<b>bold" not in text and "&lt;why M7&gt;" in text
    assert "200 times plain answers" in text and "90.0%" in text and "12.3" in text


def test_the_terminal_shows_the_same_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    report.table(content(M3="pass", M9="not applicable", M7="fail"))
    lines = [line for line in capsys.readouterr().err.splitlines() if "Title" in line]
    assert [line.split()[1] for line in lines] == ["M3", "M9", "M7"]
    assert (
        "0.5" in lines[0]
        and "≥ 0.4" in lines[0]
        and "not applicable" in lines[1]
        and "0.4" not in lines[1]
    )


def test_thresholds_are_shown_with_their_direction_and_numbers_by_what_they_are() -> None:
    assert report.bound(verdict("M3", "pass", lower_is_better=True)) == "≤ 0.4"
    assert (
        report.bound(verdict("M8", "pass")) == "≤ 0.4"
        and report.bound(verdict("M9", "pass", None)) == ""
    )
    assert [report.number(n, 0.5) for n in ("accuracy", "precision_macro", "r2")] == [
        "50.0%",
        "50.0%",
        "0.500",
    ]
    assert report.shown({"number": 1e-80}) == "< 0.0001" and report.shown({"number": None}) == ""


@pytest.mark.row("M3", "M4")
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_every_kind_draws_its_answers_and_costs(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw, costs = rng.normal(size=(60, 2)), None
    label = rng.integers(0, 2, 60) if kind == "binary" else rng.normal(size=60)
    rule = types.Rule(threshold=0.3 if kind == "binary" else None)
    made = {
        **content(M3="pass"),
        "kind": kind,
        "confusion": [[20, 10], [10, 20]],
        "decision": rule.model_dump(),
    }
    made["methods"]["M4"] = verdict("M4", "pass", costs=costs)
    answers = kinds.of(kind).decide(raw, rule)
    drawers = plots.methods(made, answers, SimpleNamespace(label=label), ["no", "yes"])
    assert set(drawers) == {"M3", "M4", *(["M3 curves"] if kind == "binary" else [])}
    for file in plots.save(drawers, tmp_path).values():
        assert file.stat().st_size > 5000


def test_examples_of_violations_are_taken_from_every_change_in_turn() -> None:
    chosen = panels.choose({"a": list(range(20)), "b": [7], "none": []})
    assert chosen[:3] == [("a", 0), ("b", 7), ("a", 1)] and len(chosen) == panels.SHOWN


@pytest.mark.row("M9")
def test_a_wrong_direction_is_shown_with_both_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour = module("evaluation.verdict")
    test = SimpleNamespace(
        inputs={"x": np.array([[1.0], [2.0], [3.0]])}, label=np.array([1.0, 2.0, 3.0])
    )
    change = behaviour.Direction(
        lambda inputs, other: inputs, lambda inputs, other: {"x": inputs["x"] - 1}, None
    )

    def answer(inputs: dict[str, np.ndarray]) -> Any:
        return kinds.of("regression").decide(inputs["x"], types.Rule())

    (pair,) = panels.misdirected(
        {"up": [2]}, test, {"up": change}, answer, [], np.random.default_rng(0)
    )
    assert (pair.name, pair.i, pair.words) == ("up", 2, "predicted: 3 → 2")
    (pair,) = panels.altered(
        {"same": [1]}, test, {"same": lambda i: {"x": i["x"] * 10}}, answer, []
    )
    assert pair.words == "2 → 20" and pair.after["x"][1] == 20

"""What an owner relies on: the page, its words, and that the same model gives the same report."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from harness import Project, module

evaluate, plots, report, pages = (
    module(name)
    for name in ("evaluation.evaluate", "evaluation.plots", "evaluation.report", "pages")
)


def verdict(
    method: str, outcome: str, number: float | None = 0.5, **details: Any
) -> dict[str, Any]:
    return {
        "method": method,
        "title": f"Title {method}",
        "outcome": outcome,
        "number": number,
        "threshold": None if number is None else 0.4,
        "why": f"<why {method}>",
        "details": details,
    }


def content(**outcomes: str) -> dict[str, Any]:
    metrics = {
        name: {"test": {"accuracy": value, "rmse": 12.3}}
        for name, value in {"network": 0.9, "classical": 0.8}.items()
    }
    methods = {
        m: verdict(m, o, None if o == "not applicable" else 0.5) for m, o in outcomes.items()
    }
    return {
        "candidate": "network",
        "test_rows": 123,
        "selection": "network is better than classical",
        "verdict": "fail",
        "methods": methods,
        "metrics": metrics,
        "provenance": {"code": "c" * 40, "data": "d" * 64},
        "explanation": {"method": "integrated gradients", "rows": 5, "unexplained": 0.01},
    }


def settings(labels: list[str]) -> Any:
    goal = SimpleNamespace(metric="accuracy")
    data = SimpleNamespace(kind="binary", labels=labels, name="things", goal=goal)
    return SimpleNamespace(data=data, project=SimpleNamespace(title="<b>bold</b>", owner="me"))


@pytest.mark.row("M3", "M5")
def test_the_same_model_gives_the_same_report(trained: Project, tmp_path: Path) -> None:
    paths = trained.settings().paths
    before = (paths.reports / "evaluation.json").read_bytes()
    pictures = {file.name: file.read_bytes() for file in (paths.reports / "plots").iterdir()}
    trained.run("evaluate")
    assert (paths.reports / "evaluation.json").read_bytes() == before
    for name, data in pictures.items():
        assert (paths.reports / "plots" / name).read_bytes() == data, name
    text = (paths.reports / "evaluation.html").read_text(encoding="utf-8")
    assert text.count("<img") == sum(name.endswith(".png") for name in pictures)
    assert "http://" not in text and "https://" not in text and "<script" not in text
    assert all(f'id="M{i}"' in text for i in (3, 4, *range(6, 13)))


def test_the_page_says_what_to_worry_about_and_escapes_what_users_wrote(tmp_path: Path) -> None:
    made = content(M3="pass", M7="fail", M10="cannot tell", M9="not applicable")
    report.write(made, 2.0, {}, settings(["no", "yes"]), "0123456789", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for tone in ("good", "bad", "unsure", "quiet"):
        assert f'<span class="badge {tone}">' in text
    assert "&lt;b&gt;bold" in text and "<b>bold" not in text
    assert "hostile inputs break it (&lt;why M7&gt;)" in text and "are not good enough" not in text
    assert "Not decided: title m10." in text and "Not examined: title m9." in text
    assert "123 test rows" in text and "model of run 01234567" in text
    assert "no and yes" in text and "All of it took 2.0 s" in text and "12.3" in text
    assert "reaches accuracy 0.9 (" in text and " 0.8)." in text


def test_the_terminal_shows_the_same_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    report.print_gate(content(M3="pass", M9="not applicable", M7="fail"), 2.0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "Title" in line]
    assert [re.findall(r"\((M\d+)\)", line)[0] for line in lines] == ["M3", "M9", "M7"]
    assert "≥ 0.4" in lines[0] and "not applicable" in lines[1] and "0.4" not in lines[1]
    assert report.bound(verdict("M3", "pass", lower_is_better=True)) == "≤ 0.4"
    assert report.number({"method": "M6", "number": 1e-80}) == "p < 0.001"


@pytest.mark.row("M7", "M8", "M9")
def test_what_the_task_declares_is_graded_and_keeps_its_shapes(trained: Project) -> None:
    """Every change gives inputs of the same shapes and types, finite, and a higher severity changes
    more.
    """
    data = trained.settings().data
    test = module("data.datamodule").load(trained.settings(), "test")
    declared = module("task.behaviour").declare(data)
    assert len(declared.perturbations) >= 8 and declared.invariances and declared.directions

    def check(changed: dict[str, Any]) -> float:
        for name, values in test.inputs.items():
            assert changed[name].shape == values.shape and changed[name].dtype == values.dtype
            assert np.isfinite(changed[name]).all()
        return sum(float(np.abs(changed[k] - v).mean()) for k, v in test.inputs.items())

    for name, change in declared.perturbations.items():
        weak, strong = (
            check(change(test.inputs, severity, np.random.default_rng(1))) for severity in (1, 5)
        )
        assert 0 < weak < strong, name
    for change in declared.invariances.values():
        check(change(test.inputs))
    others = {k: v[::-1] for k, v in test.inputs.items()}
    for direction in declared.directions.values():
        check(direction.less(test.inputs, others))
        check(direction.more(test.inputs, others))
    masks = declared.slices(test)
    assert len(masks) >= 2 and all(mask.shape == (len(test),) for mask in masks.values())
    assert all(len(column) == len(test) for column in declared.columns(test).values())

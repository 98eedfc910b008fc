import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from harness import Project, module
from kinds import KINDS, having

kinds, types, pages = (module(name) for name in ("modeling.kinds", "types", "pages"))


@pytest.mark.row("M3", "E7")
@having(*KINDS)
def test_every_kind_draws_its_answers_the_same_way_twice(kind: str) -> None:
    rng, columns = np.random.default_rng(0), 3 if kind == "multiclass" else 2
    raw, labels = rng.normal(size=(60, columns)), ["low", "middle", "high"][:columns]
    label = rng.normal(size=60) if kind == "regression" else rng.integers(0, columns, 60)
    answers = kinds.of(kind).decide(raw, types.Rule())
    for drawer in kinds.of(kind).plots(answers, label, labels).values():
        picture = pages.draw(drawer)
        assert len(picture) > 5000 and b"Software" not in picture
        assert pages.draw(drawer) == picture


@pytest.mark.row("M4")
@having("binary", "regression")
def test_the_stored_rule_is_among_the_others(kind: str) -> None:
    raw, rule = np.random.default_rng(0).normal(size=(60, 2)), types.Rule(threshold=0.3, shift=0.5)
    answers = kinds.of(kind).decide(raw, rule)
    _, stored, places, moved = kinds.of(kind).at_other_rules(answers, rule)
    same = moved[int(np.abs(places - stored).argmin())]
    assert not kinds.of(kind).differs(same, answers, 1e-9).any()


@pytest.mark.row("M9")
def test_a_wrong_direction_is_told_with_both_answers(trained: Project) -> None:
    evaluate, row_plots = module("evaluation.evaluate"), module("evaluation.row_plots")
    model, _, _ = evaluate.choose(trained.settings())
    for name in (*model.declared.directions, *model.declared.invariances):
        (before, after), answers = row_plots.changed(model, name)
        assert before.keys() == after.keys() and [len(a) for a in answers] == [len(model.test)] * 2


@pytest.mark.row("M5", "E7")
def test_plots_are_kept_with_the_runs_of_network_and_baselines(trained: Project) -> None:
    tracking, settings = module("tracking"), trained.settings()
    client = tracking.client(settings)
    key = module("provenance").read_json(settings.paths.reports / tracking.RUN_FILE)["record"]
    run = tracking.find_record(client, settings.tracking.experiment, key)
    plots = {file.path for file in client.list_artifacts(run.info.run_id, "evaluation")}
    assert {"evaluation/M5_hardest.png", "evaluation/M5_easiest.png"} <= plots
    above = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    runs = client.search_runs([run.info.experiment_id], above)
    baselines = [r.info.run_id for r in runs if "candidate" in r.data.tags]
    assert len(baselines) == 3
    for baseline in baselines:
        files = {file.path for file in client.list_artifacts(baseline, "plots")}
        assert "plots/distribution.png" in files


@pytest.mark.row("E7")
@pytest.mark.parametrize("count", [2, 3, 30])
def test_long_names_of_classes_overlap_nothing(count: int) -> None:
    labels = [f"<b>class {i} & $more$, a name of forty characters"[:40] for i in range(count)]
    rng, overlapping = np.random.default_rng(0), list[str]()
    label = rng.integers(0, count, 200)
    answers = kinds.of("multiclass").decide(rng.normal(size=(200, count)), types.Rule())
    matrix = kinds.of("multiclass").plots(answers, label, labels)["confusion"]
    plots, report = module("evaluation.plots"), module("monitoring.report")
    rates = {f"{name} and {name}": 0.1 for name in labels}

    def drawn(figure: Any, drawer: Any) -> None:
        drawer(figure)
        figure.canvas.draw()
        for axes in figure.axes:
            for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
                texts = [tick for tick in ticks if "class" in tick.get_text()]
                boxes = [text.get_window_extent() for text in texts]
                pairs = itertools.pairwise(boxes)
                overlapping.extend(str(a) for a, b in pairs if a.overlaps(b))

    for drawer in (
        matrix,
        partial(plots.violations, rates=rates, verdict={"threshold": 0.2}),
        partial(report.histogram, sides=(label * 1.0, label * 1.0), labels=labels),
    ):
        pages.draw(partial(drawn, drawer=drawer))
    assert not overlapping

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import SMALL, Project, module
from hydra.utils import get_class

SPACE = {
    "optimizer.lr": {"low": 0.001, "high": 0.01, "log": True},
    "optimizer": {"choices": ["adamw", "sgd"]},
}
BUDGET = {
    "pruner": "median",
    "warmup_epochs": 0,
    "max_trials": 3,
    "max_minutes": 5,
    "stop_at_goal": False,
}
STORAGE = "sqlite:///store/search.db"


@pytest.fixture
def ready(project: Project) -> Project:
    """A project whose data are split, which is all that a search needs."""
    for verb in ("ingest", "validate", "split"):
        assert project.run(verb) == 0
    return project


def overrides(*own: str, space: Any = SPACE, **budget: Any) -> list[str]:
    """Of a small search, whose file this writes."""
    content = {"space": space, **BUDGET, "storage": STORAGE, **budget}
    Path("configs/search/small.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return [*SMALL, "search=small", "trainer.max_epochs=2", *own]


def sweep(asked: list[str], name: str | None = None) -> dict[str, Any]:
    """Runs the search and returns its report."""
    assert (
        module("experiments.sweep").run(
            None, Namespace(overrides=asked, workers=1, name=name, worker=None)
        )
        == 0
    )
    found: dict[str, Any] = json.loads(Path("reports/sweep.json").read_text(encoding="utf-8"))
    return found


def composed(*words: str) -> dict[str, Any]:
    """The whole configuration as plain values."""
    values: dict[str, Any] = yaml.safe_load(module("params").compose(list(words)))
    return values


def with_trials(asked: list[str], num: int, value: float) -> None:
    """Puts finished trials into the study, as good in every epoch as given."""
    from optuna.trial import FixedTrial, create_trial

    trials = module("experiments.sweep")
    study = trials.Sweep(asked, trials.configured(asked), None, time.time() + 60)
    best = FixedTrial({"optimizer.lr": 0.005, "optimizer": "sgd"})
    for key, dimension in study.search.space.items():
        trials.suggest(best, key, dimension)
    for _ in range(num):
        study.study.add_trial(
            create_trial(
                value=value,
                params=best.params,
                distributions=best.distributions,
                intermediate_values=dict.fromkeys(range(3), value),
            )
        )


@pytest.mark.row("T7", "E9")
def test_a_search_leaves_runs_a_report_plots_and_an_experiment(ready: Project) -> None:
    asked = overrides()
    found = sweep(asked, "mine")
    trials, goal = found["trials"], ready.settings().data.goal
    assert [(t["number"], t["state"], t["epochs"]) for t in trials] == [
        (i, "COMPLETE", 2) for i in range(3)
    ]
    assert (
        len({t["params"]["optimizer.lr"] for t in trials}) == 3
        and found["stopped"] == "the trial budget is spent"
    )
    best = (min if found["lower_is_better"] else max)(t["score"] for t in trials)
    assert found["best"]["score"] == best and found["metric"] == goal.metric
    assert all(
        Path(f"reports/sweep/{name}.png").stat().st_size > 5000
        for name in module("experiments.sweep").PLOTS
    )

    client = module("tracking").client(ready.settings())
    experiment = client.get_experiment_by_name(ready.settings().tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], "tags.`sweep.study` = 'mine'")
    parent = next(run for run in runs if "sweep.trial" not in run.data.tags)
    children = {run.data.tags["sweep.trial"]: run for run in runs if run is not parent}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {
        parent.info.run_id
    }
    for trial in trials:
        child = children[str(trial["number"])]
        assert child.data.metrics[f"val.{goal.metric}"] == pytest.approx(trial["score"])
        assert child.data.params["optimizer.lr"] == str(trial["params"]["optimizer.lr"])
        assert (child.data.tags["state"], child.info.status) == ("COMPLETE", "FINISHED")
        assert not any(key.startswith("test") for key in child.data.metrics)
    listed = {file.path for file in client.list_artifacts(parent.info.run_id, "sweep")}
    assert {f"sweep/{name}.png" for name in module("experiments.sweep").PLOTS} < listed

    best_params = found["best"]["params"]
    written = composed("experiment=search_mine")
    words = [word for word in asked if word != "search=small"]
    assert written == composed(*words, *(f"{k}={v}" for k, v in best_params.items()))
    assert written["optimizer"]["lr"] == best_params["optimizer.lr"]


@pytest.mark.row("T7")
def test_more_trials_go_on_with_the_study_and_are_the_same_again(ready: Project) -> None:
    first = sweep(overrides(max_trials=1))
    second = sweep([*overrides(max_trials=1), "search.max_trials=2"])
    assert second["study"] == first["study"] and second["trials"][0] == first["trials"][0]
    again = sweep(overrides(max_trials=2), "again")
    params = [[(t["params"], t["score"]) for t in found["trials"]] for found in (second, again)]
    assert len(second["trials"]) == 2 and params[0] == params[1]


@pytest.mark.row("T7")
def test_a_trial_that_falls_behind_is_pruned(ready: Project) -> None:
    asked = overrides(max_trials=6)
    lower = ready.settings().data.goal.metric in module("settings").LOWER_IS_BETTER
    with_trials(asked, 5, -1e9 if lower else 1e9)
    last = sweep(asked)["trials"][-1]
    assert (last["state"], last["epochs"], last["reason"]) == (
        "PRUNED",
        1,
        "behind the others after epoch 1",
    )
    client = module("tracking").client(ready.settings())
    experiment = client.get_experiment_by_name(ready.settings().tracking.experiment)
    (run,) = client.search_runs([experiment.experiment_id], "tags.`sweep.trial` = '5'")
    assert (run.data.tags["state"], run.info.status) == ("PRUNED", "FINISHED")


@pytest.mark.row("T7")
def test_the_goal_ends_the_search(ready: Project) -> None:
    goal = ready.settings().data.goal
    easy = "data.goal.at_least=-1e9" if goal.at_most is None else "data.goal.at_most=1e9"
    found = sweep(overrides(easy, stop_at_goal=True))
    assert found["stopped"] == "the goal is reached" and len(found["trials"]) == 1


@pytest.mark.row("T7")
def test_the_time_ends_the_search_amid_a_trial(ready: Project) -> None:
    long = ["trainer.max_epochs=100000", "training.callbacks.early_stopping.patience=100000"]
    asked = overrides(*long, max_minutes=0.2, pruner="none")
    with_trials(asked, 1, 0.0)
    started = time.monotonic()
    found = sweep(asked)
    assert found["stopped"] == "the time budget is spent" and time.monotonic() - started < 60
    assert [(t["state"], t["reason"]) for t in found["trials"][1:]] == [
        ("PRUNED", "the time budget is spent")
    ]


@pytest.mark.row("T7")
def test_a_failing_trial_does_not_end_the_search_and_all_failing_do(ready: Project) -> None:
    works = ready.settings().model["_target_"]
    one = {"model._target_": {"choices": ["torch.nonsense"]}}
    with pytest.raises(ValueError, match=r"no trial gave a result; the last one: .*nonsense"):
        sweep(overrides(space=one, max_trials=2))
    mixed = {"model._target_": {"choices": ["torch.nonsense", works]}}
    states = [t["state"] for t in sweep(overrides(space=mixed, max_trials=2))["trials"]]
    assert states == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]  # only the complete ones count


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model.widht": {"choices": [1]}}, r"model\.widht"),
    ({"model.width": {"low": 9, "high": 3}}, "low <= high"),
    ({"model.width": {"low": 0, "high": 9, "log": True}}, "low"),
    ({"model.width": {"low": 1, "high": 9, "choices": [1]}}, "needs `choices`, or `low` and"),
    ({"optimizer": {"choices": ["adamw", "nonsense"]}}, "nonsense"),
    ({"training.batch_size": {"choices": [8, "many"]}}, r"training\.batch_size"),
    ({"data.split.time": {"choices": [1]}}, "nothing that training depends on"),
    ({}, "at least one key"),
]


@pytest.mark.row("T7")
def test_a_wrong_space_is_told_before_anything_runs(ready: Project) -> None:
    for space, message in WRONG:
        asked = overrides(space=space)
        with pytest.raises(ValueError, match=message):
            sweep(asked)
    assert not Path("store/search.db").exists()


@pytest.mark.row("T7")
def test_a_study_of_another_configuration_is_refused(ready: Project) -> None:
    sweep(overrides(max_trials=1), "mine")
    with pytest.raises(ValueError, match="choose another --name"):
        sweep(overrides("model.width=3", max_trials=2), "mine")
    with pytest.raises(ValueError, match=r"an environment variable: set that of \$NOWHERE"):
        sweep(overrides(storage="$NOWHERE"))
    with pytest.raises(ValueError, match="does not answer"):
        sweep(overrides(storage="sqlite:///params.yaml"))


@pytest.mark.row("T7")
def test_a_trial_that_fails_says_where_and_one_that_is_pruned_holds_no_error(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna import TrialPruned

    asked, study = overrides(max_trials=1), module("experiments.study")
    network: Any = get_class(ready.settings().model["_target_"])
    code = "\ndef forward(*_, **__):\n    raise IndexError('the third line')\n"
    names: dict[str, Any] = {}
    exec(compile(code, network.forward.__code__.co_filename, "exec"), names)
    with monkeypatch.context() as patch:
        patch.setattr(network, "forward", names["forward"])
        with pytest.raises(ValueError, match=r"networks\.py, line 3: IndexError: the third"):
            sweep(asked, "broken")
    with monkeypatch.context() as patch:

        def pruned(*_: Any) -> None:
            raise TrialPruned("behind")

        patch.setattr(study.Sweep, "score", pruned)
        with pytest.raises(ValueError, match="the last one: behind"):
            sweep(asked, "pruned")
    client = module("tracking").client(ready.settings())
    experiment = client.get_experiment_by_name(ready.settings().tracking.experiment)
    trials = client.search_runs([experiment.experiment_id], "tags.`sweep.trial` = '0'")
    ends = {run.data.tags["sweep.study"]: run for run in trials}
    assert "line 3: IndexError" in ends["broken"].data.tags["error"]
    assert ends["pruned"].info.status == "FINISHED" and "error" not in ends["pruned"].data.tags
    assert ends["pruned"].data.tags["state"] == "PRUNED"

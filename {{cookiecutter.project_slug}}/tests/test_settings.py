import itertools
import sys
from pathlib import Path

import pytest
import torch
import yaml
from harness import ROOT, Project, module
from hydra.utils import instantiate


def composed(*overrides: str):  # type: ignore[no-untyped-def]
    return module("settings").parse(yaml.safe_load(module("pipeline").compose(list(overrides))))


@pytest.mark.row("T6")
def test_every_shipped_configuration_composes_into_valid_settings(project: Project) -> None:
    for path in sorted((ROOT / "configs").glob("*/*.yaml")):
        shipped = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        asked = [f"data.source.{key}=given" for key, value in shipped.items() if value == "???"]
        settings = composed(f"{path.parent.name}={path.stem}", *asked)
        for component in (settings.augmentation, settings.loss):
            assert component is None or isinstance(instantiate(component), torch.nn.Module), path


@pytest.mark.row("T6")
def test_optimizers_and_schedules_are_built_together(project: Project) -> None:
    part, schedules = module("modeling.module"), ["cosine", "onecycle", "plateau", "none"]
    for optimizer, scheduler in itertools.product(["adamw", "sgd", "nadam"], schedules):
        settings = composed(f"optimizer={optimizer}", f"scheduler={scheduler}")
        made = part.Module(settings, part.build_network(settings))
        made.trainer = type("T", (), {"estimated_stepping_batches": 40})()
        (built,), (schedule,) = made.configure_optimizers()
        assert built.param_groups[0]["initial_lr" if scheduler != "plateau" else "lr"] > 0
        assert ("monitor" in schedule) == (scheduler == "plateau")


WRONG: list[tuple[str, list[str], dict[str, object], str]] = [
    ("binary", ["a"], {}, "two labels, the positive one second"),
    ("multiclass", ["a", "b"], {}, "three labels or more"),
    ("regression", ["a"], {}, "needs no labels"),
    ("regression", [], {"metric": "accuracy"}, "must be one of mse"),
    ("regression", [], {"metric": "rmse", "at_least": 1, "at_most": None}, "needs `at_most`"),
    ("regression", [], {"costs": {"under": 1}}, "`under` and `over`"),
    ("binary", ["a", "b"], {"costs": [[0, 1]]}, "2 rows of 2 costs"),
    ("binary", ["a", "b"], {"costs": [[0, -1], [1, 0]]}, "greater than or equal to 0"),
]


@pytest.mark.row("M1", "M4")
def test_what_does_not_fit_is_refused_by_name(project: Project) -> None:
    parse, raw = module("settings").parse, yaml.safe_load(Path("params.yaml").read_bytes())
    with pytest.raises(ValueError, match=r"training\.batchsize: Extra inputs"):
        parse({**raw, "training": {**raw["training"], "batchsize": 8}})
    for kind, labels, changes, message in WRONG:
        goal: dict[str, object] = {"at_least": 0.5, "costs": None, "metric": "accuracy"}
        goal |= {"max_error_rate": 0.1, "target_error": 0.1}
        if kind == "regression":
            goal |= {"metric": "mae", "at_least": None, "at_most": 1}
        data = {**raw["data"], "kind": kind, "labels": labels, "goal": goal | changes}
        with pytest.raises(ValueError, match=message):
            parse({**raw, "data": data})


def test_overrides_are_in_hydras_grammar_and_wrong_ones_say_what_to_write(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("optimizer.lr=1e-3", "augmentation=null", "evaluation.cost.max_ratio=.5")
    settings = project.settings(*given)
    assert settings.optimizer["lr"] == 0.001 and settings.augmentation is None
    assert settings.evaluation.cost.max_ratio == 0.5
    for override in ("serving.prt=1", "nonsense=1", "serving.port.deep=1"):
        with pytest.raises(ValueError, match=r"unknown key .* such as `serving\.port=9000`"):
            project.settings(override)
    with pytest.raises(ValueError, match="choose groups"):
        project.settings("optimizer=sgd")
    # The serving image has no Hydra.
    monkeypatch.setitem(sys.modules, "hydra.core.override_parser.overrides_parser", None)
    settings = module("params").load(["serving.port=9000", "serving.host=0.0.0.0"])
    assert (settings.serving.port, settings.serving.host) == (9000, "0.0.0.0")


def test_seven_files_at_most_compose_what_params_yaml_holds(project: Project) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(Path("configs").resolve()), version_base=None):
        choices = compose("config", return_hydra_config=True).hydra.runtime.choices
    chosen = {g for g, choice in choices.items() if choice and not g.startswith("hydra/")}
    assert len(chosen) + 1 <= 7, chosen
    assert chosen <= {path.parent.name for path in Path("configs").glob("*/*.yaml")}
    flatten, shipped = (
        module("tracking").flatten,
        yaml.safe_load((ROOT / "params.yaml").read_bytes()),
    )
    wanted = yaml.safe_load(module("pipeline").compose([]))
    assert {*flatten(shipped)} == {*flatten(wanted)}, "params.yaml is stale: run `make pipeline`"

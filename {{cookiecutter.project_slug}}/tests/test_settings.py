import itertools
import sys
from pathlib import Path

import pytest
import torch
import yaml
from harness import ROOT, Project, module
from hydra.utils import instantiate

CHOICES = [f"{p.parent.name}={p.stem}" for p in sorted((ROOT / "configs").glob("*/*.yaml"))]


def composed(*overrides: str):  # type: ignore[no-untyped-def]
    return module("settings").parse(yaml.safe_load(module("pipeline").compose(list(overrides))))


@pytest.mark.row("T6")
@pytest.mark.parametrize("choice", CHOICES)
def test_every_shipped_configuration_composes_into_valid_settings(
    choice: str, project: Project
) -> None:
    group, _, name = choice.partition("=")
    shipped = (
        yaml.safe_load((ROOT / "configs" / group / f"{name}.yaml").read_text(encoding="utf-8"))
        or {}
    )
    asked = [f"data.source.{key}=given" for key, value in shipped.items() if value == "???"]
    settings = composed(choice, *asked)
    for component in (settings.augmentation, settings.loss):
        assert component is None or isinstance(instantiate(component), torch.nn.Module)


@pytest.mark.row("T6")
@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    list(itertools.product(["adamw", "sgd", "nadam"], ["cosine", "onecycle", "plateau", "none"])),
)
def test_optimizers_and_schedules_are_built_together(
    optimizer: str, scheduler: str, project: Project
) -> None:
    settings = composed(f"optimizer={optimizer}", f"scheduler={scheduler}")
    part = module("modeling.module")
    made = part.Module(settings, part.build_network(settings))
    made.trainer = type("T", (), {"estimated_stepping_batches": 40})()
    (built,), (schedule,) = made.configure_optimizers()
    assert built.param_groups[0]["initial_lr" if scheduler != "plateau" else "lr"] > 0
    assert ("monitor" in schedule) == (scheduler == "plateau")


def test_unknown_key_is_refused_by_name(project: Project) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    raw["training"]["batchsize"] = 8
    with pytest.raises(ValueError, match=r"training\.batchsize: Extra inputs"):
        module("settings").parse(raw)


@pytest.mark.row("M1", "M4")
@pytest.mark.parametrize(
    ("kind", "labels", "goal", "message"),
    [
        ("binary", ["a"], {}, "two labels, the positive one second"),
        ("multiclass", ["a", "b"], {}, "three labels or more"),
        ("regression", ["a"], {}, "needs no labels"),
        ("regression", [], {"metric": "accuracy"}, "must be one of mse"),
        ("regression", [], {"metric": "rmse", "at_least": 1, "at_most": None}, "needs `at_most`"),
        ("regression", [], {"costs": {"under": 1}}, "`under` and `over`"),
        ("binary", ["a", "b"], {"costs": [[0, 1]]}, "2 rows of 2 costs"),
        ("binary", ["a", "b"], {"costs": [[0, -1], [1, 0]]}, "greater than or equal to 0"),
    ],
)
def test_a_goal_that_does_not_fit_the_kind_is_refused(
    kind: str, labels: list[str], goal: dict[str, object], message: str, project: Project
) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    metric = (
        {"metric": "mae", "at_least": None, "at_most": 1}
        if kind == "regression"
        else {"metric": "accuracy"}
    )
    raw["data"] |= {"kind": kind, "labels": labels}
    raw["data"]["goal"] = (
        {"at_least": 0.5, "costs": None, "max_error_rate": 0.1, "target_error": 0.1} | metric | goal
    )
    with pytest.raises(ValueError, match=message):
        module("settings").parse(raw)


@pytest.mark.parametrize("override", ["serving.prt=1", "nonsense=1", "serving.port.deep=1"])
def test_unknown_override_says_what_to_write(override: str, project: Project) -> None:
    with pytest.raises(ValueError, match=r"unknown key .* such as `serving\.port=9000`"):
        project.settings(override)


def test_overrides_are_in_hydras_grammar(project: Project) -> None:
    settings = project.settings(
        "optimizer.lr=1e-3", "augmentation=null", "evaluation.cost.max_ratio=.5"
    )
    assert settings.optimizer["lr"] == 0.001 and settings.augmentation is None
    assert settings.evaluation.cost.max_ratio == 0.5


def test_the_serving_image_takes_overrides_without_hydra(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hydra.core.override_parser.overrides_parser", None)
    settings = module("params").load(["serving.port=9000", "serving.host=0.0.0.0"])
    assert (settings.serving.port, settings.serving.host) == (9000, "0.0.0.0")


def test_group_override_points_to_the_verbs_that_compose(project: Project) -> None:
    with pytest.raises(ValueError, match="choose groups"):
        project.settings("optimizer=sgd")


def test_at_most_seven_files_compose_by_default(project: Project) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(Path("configs").resolve()), version_base=None):
        config = compose("config", return_hydra_config=True)
    chosen = {
        group: choice
        for group, choice in config.hydra.runtime.choices.items()
        if choice and not group.startswith("hydra/")
    }
    assert len(chosen) + 1 <= 7, chosen
    alternatives = {path.parent.name for path in Path("configs").glob("*/*.yaml")}
    assert {*chosen} <= alternatives


def test_shipped_params_have_the_keys_of_configs(project: Project) -> None:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    wanted = yaml.safe_load(module("pipeline").compose([]))
    flatten = module("tracking").flatten
    assert set(flatten(shipped)) == set(flatten(wanted)), (
        "params.yaml is stale: run `make pipeline`"
    )

"""Recipes on a small trained project: that each one does what its name says, and that its table
tells the truth.
"""

import hashlib
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import SMALL, Project, module
from recipes import scores, workshop


@pytest.mark.row("T8", "T1")
def test_mixed_precision_multiplies_in_16_bits(trained: Project, tmp_path: Path) -> None:
    shop, seen, networks = workshop(trained, tmp_path / "shop"), list[set[torch.dtype]](), []
    train = shop.train

    def spy(*given: Any) -> Any:
        seen.append(set())
        networks.append(train(*given)[0])

    def note(layer: torch.nn.Module, _: Any, output: Any) -> None:
        if layer.training and isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            seen[-1].add(output.dtype)

    shop.train = spy
    with torch.nn.modules.module.register_module_forward_hook(note):
        module("recipes.precision").recipe(shop)
    assert seen == [{torch.float32}, {torch.bfloat16}]
    assert [row["variant"] for row in shop.rows] == ["32-true", "bf16-mixed"]
    for row, network in zip(shop.rows, networks, strict=True):
        assert {k: row[k] for k in scores(shop, network)} == scores(shop, network)
        assert row["parameters"] == sum(p.numel() for p in network.parameters())
        assert row["s training"] > row["s per epoch"] > 0


@pytest.mark.row("T8", "T1")
@pytest.mark.parametrize("broken", [None, "a step per part", "a part without weight"])
def test_accumulation_gives_the_curve_of_the_big_batch(
    broken: str | None, trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulation, variants = module("recipes.accumulation"), module("recipes.variants")
    shop, curves = workshop(trained, tmp_path / "shop"), []
    train, changed, size = shop.train, variants.changed, shop.settings.training.batch_size

    def spy(*given: Any) -> Any:
        network, curve = train(*given)
        curves.append(curve)
        return network, curve

    shop.train = spy
    if broken == "a step per part":
        monkeypatch.setattr(
            accumulation,
            "changed",
            lambda s, group, **v: s if "accumulate_grad_batches" in v else changed(s, group, **v),
        )
    elif broken:
        step = variants.Module.training_step

        def skewed(self: Any, batch: Any, batch_idx: int) -> torch.Tensor:
            lost = len(batch["label"]) < size and batch_idx % 4 == 3
            return step(self, batch, batch_idx) * (0 if lost else 1)  # type: ignore[no-any-return]

        monkeypatch.setattr(variants.Module, "training_step", skewed)
    accumulation.recipe(shop)
    assert shop.failed == bool(broken), shop.notes
    if not broken:
        configured, cut, still, still_cut = (curve.steps for curve in curves)
        rows = len(module("data.datamodule").load(shop.settings, "train"))
        assert configured == cut == 2 * -(-rows // size) and still == still_cut == 2 * (
            rows // size
        )
        assert [len(curve.losses) for curve in curves] == [2] * 4
    elif broken == "a step per part":
        assert curves[3].steps == 4 * curves[2].steps


def digest(folder: Path) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.mark.row("T8")
def test_a_recipe_is_recorded_and_leaves_the_pipeline_as_it_was(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, tracking, settings = (
        module("recipes.recipe"),
        module("tracking"),
        trained.settings(),
    )
    folders = [settings.paths.model, settings.paths.splits, settings.paths.bundle]
    before, reports = [digest(f) for f in folders], digest(settings.paths.reports)
    tables = []
    for _ in range(2):
        assert (
            recipe.run(None, Namespace(overrides=["precision", *SMALL, "trainer.max_epochs=1"]))
            == 0
        )
        tables.append(
            json.loads(
                (settings.paths.reports / "recipe-precision.json").read_text(encoding="utf-8")
            )
        )
    assert [digest(f) for f in folders] == before
    assert reports.items() <= digest(settings.paths.reports).items()
    metric = f"test {settings.data.goal.metric}"
    first, again = ([row[metric] for row in table["rows"]] for table in tables)
    assert first == again and len(first) == 2
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[0] == "variant" and f"{again[0]:.4g}" in shown[1] and "(x" in shown[2]
    tracking.deliver(settings, must=True)
    client = tracking.client(settings)
    experiment = client.get_experiment_by_name(settings.tracking.experiment).experiment_id
    parent = client.search_runs([experiment], "tags.recipe = 'precision'")[0]
    children = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert {
        c.data.tags["recipe.variant"]: c.data.metrics[f"recipe.{metric}"] for c in children
    } == {row["variant"]: row[metric] for row in tables[1]["rows"]}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}


def test_one_line_says_what_is_wrong(trained: Project, tmp_path: Path) -> None:
    parse = module("recipes.recipe").parse
    folder = Path(str(module("recipes.recipe").__file__)).parent
    present = [name for name in module("recipes.recipe").NAMES if (folder / f"{name}.py").is_file()]
    assert {"precision", "accumulation"} <= {*present}
    for words in ([], ["unknown"], ["precision", "accumulation"]):
        with pytest.raises(ValueError, match=f"name one recipe: {', '.join(present)}$"):
            parse(words)
    assert parse(["accumulation", "parts=8", "seed=3"]) == (
        "accumulation",
        {"parts": 8},
        ["seed=3"],
    )
    with pytest.raises(ValueError, match="parts takes a number, such as parts=4"):
        parse(["accumulation", "parts=many"])
    with pytest.raises(ValueError, match="a batch of 32 has no 5 equal parts"):
        module("recipes.accumulation").recipe(
            workshop(trained, tmp_path / "shop", "training.batch_size=32"), parts=5
        )


def test_without_data_the_command_that_makes_them_is_named(project: Project) -> None:
    with pytest.raises(ValueError, match="run `make pipeline` first"):
        module("recipes.recipe").run(None, Namespace(overrides=["precision"]))

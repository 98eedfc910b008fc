"""T8: each recipe on a small trained project gives a row beside the plain run."""

import json
from argparse import Namespace
from typing import Any

import pytest
from harness import SMALL, Project, module

COLUMNS = {
    "precision": "s training",
    "accumulation": "s training",
    "compile": "s training",
    "quantize": "ms for 256",
    "distill": "ms for 256",
    "lora": "trained",
}


def measure(project: Project, name: str, *options: str) -> list[dict[str, Any]]:
    words = [name, *options, *SMALL, "trainer.max_epochs=1"]
    assert module("recipes.recipe").run(None, Namespace(overrides=words)) == 0
    path = project.settings().paths.reports / f"recipe-{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


@pytest.mark.row("T8", "T1")
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own parts
@pytest.mark.parametrize("name", COLUMNS)
def test_a_recipe_prints_cost_and_effect(name: str, trained: Project) -> None:
    rows, metric = measure(trained, name), trained.settings().data.goal.metric
    assert len(rows) >= 2
    for row in rows:
        assert {"variant", f"val {metric}", f"test {metric}", COLUMNS[name]} <= row.keys()
    if name == "quantize":
        assert rows[1][f"test {metric}"] == pytest.approx(rows[0][f"test {metric}"], abs=0.1)
    if name == "distill":
        assert 0.2 <= rows[2]["parameters"] / rows[0]["parameters"] <= 0.5
    if name == "lora":
        assert rows[2]["trained"] < rows[1]["trained"] / 2


def test_one_line_says_what_is_wrong(trained: Project) -> None:
    recipe = module("recipes.recipe")
    for words in ([], ["unknown"], ["precision", "lora"]):
        with pytest.raises(ValueError, match="name one recipe: precision, "):
            recipe.parse(words)
    words = ["accumulation", "parts=8", "seed=3"]
    assert recipe.parse(words) == ("accumulation", {"parts": 8}, ["seed=3"])
    with pytest.raises(ValueError, match="no perturbation 'fog'"):
        measure(trained, "lora", "shift=fog")

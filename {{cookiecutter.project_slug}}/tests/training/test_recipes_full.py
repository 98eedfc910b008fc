import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from harness import PACKAGE, Project, module
from kinds import KINDS, as_kind
from recipes import scores, workshop
from safetensors.torch import load_file
from torch.distributions import Categorical, kl_divergence


def trained_network(shop: Any) -> torch.nn.Module:
    return module("modeling.candidates").load(shop.settings)["network"].network  # type: ignore[no-any-return]


@pytest.mark.row("T8")
def test_quantization_stores_and_computes_in_8_bits(trained: Project, tmp_path: Path) -> None:
    shop = workshop(trained, tmp_path / "shop")
    module("recipes.quantize").recipe(shop)
    plain, small = shop.rows
    assert {k: plain[k] for k in scores(shop, trained_network(shop))} == scores(
        shop, trained_network(shop)
    )
    graph = onnx.load(shop.folder / "int8.onnx").graph
    weights = [
        t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    ]
    products = [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert products and len(weights) == len(products)
    wide = {
        t.name
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1
    }
    assert not wide & {name for node in products for name in node.input}
    assert small["KiB"] == (shop.folder / "int8.onnx").stat().st_size / 1024
    metric = f"test {shop.settings.data.goal.metric}"
    assert small[metric] == pytest.approx(plain[metric], abs=0.1)


@pytest.mark.row("T8")
def test_the_student_is_a_quarter_and_learns_from_the_teacher(
    trained: Project, tmp_path: Path
) -> None:
    shop, networks = workshop(trained, tmp_path / "shop"), []
    fit = shop.fit

    def spy(*given: Any) -> Any:
        networks.append(fit(*given))
        return networks[-1]

    shop.fit = spy
    module("recipes.distill").recipe(shop)
    teacher, alone, taught = shop.rows
    assert 0.2 <= taught["parameters"] / teacher["parameters"] <= 0.3
    for row, (network, _) in zip((alone, taught), networks, strict=True):
        assert {k: row[k] for k in scores(shop, network)} == scores(shop, network)
        assert row["parameters"] == sum(p.numel() for p in network.parameters())
    mine, other = (list(network.parameters()) for network, _ in networks)
    assert not all(
        torch.equal(a, b) for a, b in zip(mine, other, strict=True)
    )  # the teacher made a difference


def test_a_named_student_and_a_model_without_width(trained: Project) -> None:
    distill, settings = module("recipes.distill"), trained.settings()
    assert distill.smaller(settings, "model.width=5").model["width"] == 5
    bare = settings.model_copy(
        update={"model": {k: v for k, v in settings.model.items() if k != "width"}}
    )
    with pytest.raises(ValueError, match="name a smaller one, such as student="):
        distill.smaller(bare, "")


@pytest.mark.row("T8")
@pytest.mark.parametrize("kind", KINDS)
def test_the_distilled_loss_is_that_of_the_paper(kind: str, trained: Project) -> None:
    raw = yaml.safe_load((trained.folder / "params.yaml").read_text(encoding="utf-8"))
    settings = module("settings").parse(
        {**as_kind(raw, kind), "loss": {**raw["loss"], "kind": kind}}
    )
    k = len(settings.data.labels) or 2
    rng = torch.Generator().manual_seed(0)
    own, wanted = torch.randn(6, k, generator=rng), torch.randn(6, k, generator=rng)
    label = own[:, 0].clone() if kind == "regression" else torch.arange(6) % k
    taught = module("recipes.distill").Taught(
        settings,
        torch.nn.Identity(),
        2.0 if kind == "regression" else 1.0,
        torch.nn.Identity(),
        4.0,
        0.25,
    )
    taught.wanted = wanted
    if kind == "regression":
        distance = (((own - wanted) / torch.tensor([2.0, 1.0])) ** 2).mean()
    else:
        distance = (
            16 * kl_divergence(Categorical(logits=wanted / 4), Categorical(logits=own / 4)).mean()
        )
    labels = taught.eval()._loss(own, label)
    torch.testing.assert_close(taught.train()._loss(own, label), 0.75 * labels + 0.25 * distance)


@pytest.mark.row("T8")
def test_lora_trains_adapters_alone_and_merges(trained: Project, tmp_path: Path) -> None:
    shop, networks = workshop(trained, tmp_path / "shop"), []
    lora, variants, pretrained = (
        module("recipes.lora"),
        module("recipes.variants"),
        trained_network(shop),
    )
    fit = shop.fit

    def spy(*given: Any) -> Any:
        found = fit(*given)
        state = {k: v.clone() for k, v in found[0].state_dict().items()}
        networks.append((state, found[0], variants.raw(found[0])(shop.examples["test"].inputs)))
        return found

    shop.fit = spy
    lora.recipe(shop, rank=2)
    state, merged, adapted = networks[1]
    base = {k.replace("parametrizations.weight.original", "weight"): v for k, v in state.items()}
    frozen = pretrained.state_dict()
    assert all(torch.equal(base[name], value) for name, value in frozen.items())
    stored = load_file(shop.folder / "adapters.safetensors")
    assert {*base} - {*frozen} == {*stored} and any(
        value.abs().max() > 0 for k, value in stored.items() if k[-1] == "b"
    )
    _, full, small = shop.rows
    assert small["trained"] == sum(t.numel() for t in stored.values()) < full["trained"] / 2
    assert small["KiB"] == (shop.folder / "adapters.safetensors").stat().st_size / 1024
    inputs = shop.examples["test"].inputs
    assert merged.state_dict().keys() == frozen.keys()
    np.testing.assert_allclose(variants.raw(merged)(inputs), adapted, rtol=1e-4, atol=1e-4)
    assert not np.allclose(variants.raw(pretrained)(inputs), adapted)


@pytest.mark.row("T8")
def test_lora_is_judged_on_changed_inputs(trained: Project, tmp_path: Path) -> None:
    shop, lora = (
        workshop(trained, tmp_path / "shop", "trainer.max_epochs=1"),
        module("recipes.lora"),
    )
    known = module("task.behaviour").declare(shop.settings.data).perturbations
    lora.recipe(shop, shift=[*known][-1], severity=5)
    for examples in shop.examples.values():
        for name, values in known[[*known][-1]](
            examples.inputs, 5, np.random.default_rng(shop.settings.seed)
        ).items():
            examples.inputs[name][:] = values
    metric = f"test {shop.settings.data.goal.metric}"
    run = module("tracking").start(shop.settings, "again")
    shop.add(run, "again", module("recipes.variants").raw(trained_network(shop)), {})
    assert shop.rows[0][metric] == shop.rows[-1][metric]
    with pytest.raises(ValueError, match="no perturbation 'fog'"):
        lora.recipe(shop, shift="fog")


@pytest.mark.parametrize("name", ["quantize", "distill", "lora"])
def test_without_a_model_the_command_that_makes_it_is_named(
    name: str, trained: Project, tmp_path: Path
) -> None:
    shop = workshop(trained, tmp_path / "shop")
    (shop.settings.paths.model / "network.safetensors").unlink()
    with pytest.raises(ValueError, match="run `make pipeline` first"):
        module(f"training.{name}").recipe(shop)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler warns of its own parts
@pytest.mark.row("T8")
def test_compiling_runs_the_compiled_network(trained: Project, tmp_path: Path) -> None:
    shop = workshop(trained, tmp_path / "shop")
    module("recipes.compile").recipe(shop)
    plain, compiled = shop.rows
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs >= 2  # the trial addition, and the network
    assert list((shop.folder / "cache").rglob("*.so")) or list(
        (shop.folder / "cache").rglob("*.cpp")
    )
    assert compiled["parameters"] == plain["parameters"] and "compiling took" in shop.notes[0]


@pytest.mark.slow
def test_a_missing_compiler_is_one_line(trained: Project) -> None:
    command = [sys.executable, "-m", PACKAGE, "recipe", "compile", "trainer.max_epochs=1"]
    env = {**os.environ, "CXX": "no-such-compiler"}
    done = subprocess.run(
        command, cwd=trained.folder, env=env, capture_output=True, text=True, check=False
    )
    assert (
        done.returncode == 2
        and "error: torch.compile needs a C++ compiler: install g++" in done.stderr
    )
    assert "Traceback" not in done.stderr

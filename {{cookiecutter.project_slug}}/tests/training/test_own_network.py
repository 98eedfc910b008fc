"""A network and a LightningModule of one's own: what they must give, and how they are told."""

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import small
import torch
from harness import Project, module
from hydra.utils import get_class
from torch import Tensor, nn

ROWS = {"x": torch.zeros(2, 8).numpy()}
OTHERS = {
    "logits alone": (lambda x: x[:, :2], r"returned one tensor \[2, 2\]"),
    "a dict": (lambda x: {"raw": x[:, :2], "embedding": x}, "a dict of raw, embedding"),
    "three": (lambda x: (x[:, :2], x, x), r"returned 3: one tensor \[2, 2\], one tensor \[2, 8\]"),
    "a wrong k": (lambda x: (x[:, :3], x), r"raw outputs \[2, 2\] and an embedding \[2, e\]"),
    "one dimension": (lambda x: (x[:, :2], x[:, 0]), r"one tensor \[2\]"),
    "two logits": (lambda x: (x[:, :2], x[:, 2:4]), "embedding .* of another width"),
    "no tensors": (lambda x: (x[:, :2], None), "a NoneType"),
    "nothing": (lambda x: None, "returned a NoneType"),
    "no row": (lambda x: (x.mean(0)[None, :2], x), r"one tensor \[1, 2\]"),
}


class Network(nn.Module):
    """Returns what it is told to, and draws, drops and counts as networks do."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self.frozen, self.norm = answer, nn.Dropout().eval(), nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Any:
        torch.rand(3)
        return self.answer(self.norm(self.frozen(x)))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small.two_classes(tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_network_must_return_is_said_in_one_line(name: str, settings: Any) -> None:
    answer, words = OTHERS[name]
    with pytest.raises(ValueError, match=words) as caught:
        module("modeling.module").check_network(settings, Network(answer), ROWS)
    assert "\n" not in str(caught.value) and "Network must return a pair" in str(caught.value)


def test_a_network_that_takes_other_inputs_is_told_which_there_are(settings: Any) -> None:
    network = Network(lambda x: (x[:, :2], x))
    with pytest.raises(ValueError, match=r"missing a required argument: 'x'; .*'picture': \[2, 8"):
        module("modeling.module").check_network(settings, network, {"picture": ROWS["x"]})


def test_looking_at_a_network_changes_nothing(settings: Any) -> None:
    network = Network(lambda x: (x[:, :2], x))
    modes = [layer.training for layer in network.modules()]
    weights, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    module("modeling.module").check_network(settings, network, {"x": torch.ones(2, 8).numpy()})
    assert torch.equal(torch.get_rng_state(), random)
    assert [layer.training for layer in network.modules()] == modes == [True, False, True]
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())


def runs(project: Project) -> list[Any]:
    client = module("tracking").client(project.settings())
    experiment = client.get_experiment_by_name(project.settings().tracking.experiment)
    return list(client.search_runs([experiment.experiment_id]))


def broken(function: Any, error: str) -> Any:
    """A function that raises an error in the third line of the file of another one."""
    code = f"\ndef broken(*_, **__):\n    raise {error}('the third line')\n"
    names: dict[str, Any] = {}
    exec(compile(code, function.__code__.co_filename, "exec"), names)
    return names["broken"]


def break_code(patch: pytest.MonkeyPatch, function: Any, error: str) -> None:
    """Has it raise an error, whoever calls it."""
    patch.setattr(function, "__code__", broken(function, error).__code__)


def functions(project: Project) -> dict[str, Any]:
    network: Any = get_class(project.settings().model["_target_"])
    return {
        "networks.py": network.forward,
        "source.py": module("task.source").bundled,
        "behaviour.py": module("task.behaviour").declare,
    }


VERBS = {"networks.py": "train", "source.py": "ingest", "behaviour.py": "evaluate"}


@pytest.mark.parametrize("error", ["ValueError", "TypeError", "IndexError"])
@pytest.mark.parametrize("file", VERBS)
def test_an_error_in_the_owners_code_names_file_and_line(
    file: str,
    error: str,
    trained: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_code(monkeypatch, functions(trained)[file], error)
    words = [VERBS[file], *(["--pipeline"] if file == "networks.py" else [])]
    main = module("__main__").main
    assert main(words) == 2
    kind = "" if error == "ValueError" else f"{error}: "
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert re.search(rf"/task/{file}, line 3: {kind}the third line", line)
    with pytest.raises(__builtins__[error]):  # type: ignore[index]
        main([*words, "--debug"])


def test_a_failed_run_holds_the_error_with_its_place(
    trained: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_code(monkeypatch, functions(trained)["networks.py"], "IndexError")
    with pytest.raises(SystemExit) as ended:  # Hydra's own command line
        module("__main__").main(["train", "trainer.max_epochs=1"])
    assert ended.value.code == 2 and "networks.py, line 3: Index" in capsys.readouterr().err
    run, client = runs(trained)[0], module("tracking").client(trained.settings())
    assert run.info.status == "FAILED"
    assert "networks.py, line 3: IndexError: the third line" in run.data.tags["error"]
    text = Path(client.download_artifacts(run.info.run_id, "error.txt")).read_text("utf-8")
    assert text.startswith("Traceback") and text.endswith("IndexError: the third line\n")
    assert all("error" not in run.data.tags for run in runs(trained) if run.info.status != "FAILED")


def test_an_error_that_hydra_wraps_keeps_its_place(
    trained: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    augment: Any = get_class(trained.settings().augmentation["_target_"])
    monkeypatch.setattr(augment, "__init__", broken(augment.__init__, "KeyError"))
    assert module("__main__").main(["train", "--pipeline"]) == 2
    assert "augment.py, line 3: KeyError: 'the third line'" in capsys.readouterr().err


class Adversarial(L.LightningModule):
    """A critic learns to tell rows by their embedding; the network learns to mislead it."""

    def __init__(self, settings: Any, network: nn.Module, scale: float, share: float = 0.1) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings, self.network, self.share = settings, network, share
        self.critic = nn.LazyLinear(1)
        self.loss = nn.MSELoss() if not settings.data.labels else nn.CrossEntropyLoss()

    def task_loss(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        raw, embedding = self.network(**batch["inputs"])
        raw = raw if self.settings.data.labels else raw[:, 0]
        return self.loss(raw, batch["label"]), embedding

    def training_step(self, batch: dict[str, Any], index: int) -> None:
        network, critic = self.optimizers()  # type: ignore[attr-defined]
        loss, embedding = self.task_loss(batch)
        network.zero_grad()
        self.manual_backward(loss - self.share * self.critic(embedding).sigmoid().log().mean())
        network.step()
        critic.zero_grad()
        self.manual_backward(self.critic(embedding.detach()).sigmoid().mean())
        critic.step()
        self.log("train/loss", loss.detach(), on_epoch=True, on_step=False)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.log("val/loss", self.task_loss(batch)[0], batch_size=len(batch["label"]))

    def configure_optimizers(self) -> Any:
        self.critic.initialize_parameters(torch.zeros(1, self.width()))
        parts = (self.network, self.critic)
        return [torch.optim.Adam(part.parameters(), 3e-3) for part in parts]

    def width(self) -> int:
        rows = module("data.datamodule").first_rows(self.settings, "train")
        inputs = {name: torch.from_numpy(values) for name, values in rows.items()}
        return int(self.network(**inputs)[1].shape[1])


class Forgetful(Adversarial):
    def __init__(self, settings: Any, network: nn.Module, scale: float) -> None:
        super().__init__(settings, nn.Sequential(network), scale)


class Hoarding(Adversarial):
    def __init__(self, settings: Any, network: nn.Module, scale: float) -> None:
        super().__init__(settings, network, scale)
        self.save_hyperparameters(ignore="network")


OWN = "training.module={_target_: test_own_network.%s}"


@pytest.mark.slow
def test_a_lightning_module_of_ones_own_comes_to_a_promoted_bundle(
    trained: Project, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(trained.folder, [*trained.overrides, OWN % "Adversarial"])
    for verb in ("train", "evaluate", "package"):
        assert project.run(verb) == 0, verb
    assert caplog.text.count("no health signs") == 1
    assert re.search(r"epoch 6/6 .*train/loss", capsys.readouterr().err)
    settings = Namespace(override="a test of the way, not of the model")
    assert module("packaging.promote").run(project.settings(), settings) == 0
    assert project.run("pull") == 0
    assert Path("live/current.json").is_file()


def test_a_module_that_cannot_work_is_told_in_one_line(trained: Project) -> None:
    for name, words in [("Forgetful", "keeps `network` as self.network"), ("Hoarding", "ignore=")]:
        with pytest.raises(ValueError, match=words):
            trained.run("train", OWN % name)
    with pytest.raises(ValueError, match=r"not with training\.module"):
        trained.run("train", OWN % "Adversarial", "training.must_overfit=true")
    with pytest.raises(ValueError, match="needs `_target_`"):
        trained.settings("training.module={name: x}")


def test_a_long_epoch_says_where_it_is(
    settings: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit, rows = module("training.fit"), small.Rows(96, small.side)
    fitted = module("modeling.module").Module(settings, small.deep(nn.SiLU))
    small.fit(fitted, small.Data(rows, rows), fit.EpochLines(), 1)
    assert capsys.readouterr().err.count("\n") == 1  # an epoch that is short
    monkeypatch.setattr(module("logs"), "TOLD_SECONDS", 0.0)
    small.fit(fitted, small.Data(rows, rows), fit.EpochLines(), 1)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"  epoch 1/1 step 1 of 3 loss \d\.\d{4}", first)
    assert "train/loss" in last

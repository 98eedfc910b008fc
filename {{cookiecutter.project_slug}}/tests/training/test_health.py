"""Every sign is provoked in a real training of a small network: it is named in log and report, and
no other is.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import small
import torch
from harness import Project, module
from small import Batch, Data, Net, Rows, deep, noise, side, xor
from torch import Tensor, nn

health, signs = module("training.health"), module("training.signs")


class Watch:
    """Trains on two classes with the project's module, and keeps the lines that are logged."""

    def __init__(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings, self.lines = settings, list[str]()
        monkeypatch.setattr(
            health.logs, "get", lambda stage: SimpleNamespace(warning=self.lines.append)
        )
        self.health = health.Health(settings)

    def fit(
        self,
        net: nn.Module,
        train: Rows | None = None,
        val: Rows | None = None,
        *,
        lr: float = 0.01,
        decay: float = 0.0,
        epochs: int = 5,
        loss: nn.Module | None = None,
        **options: Any,
    ) -> L.Trainer:
        optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": lr}
        optimizer |= {"weight_decay": decay}
        fitted = module("modeling.module").Module(
            self.settings.model_copy(update={"optimizer": optimizer}), net
        )
        fitted.loss = loss or fitted.loss
        data = Data(train or Rows(512, side), val or Rows(256, side, seed=1))
        return small.fit(fitted, data, self.health, epochs, **options)

    def names(self) -> list[str]:
        """What the report names; each was in the log, once, and nothing else was."""
        named = [row["sign"] for row in self.health.report() if row["epoch"]]
        assert sorted(line.split()[1] for line in self.lines) == sorted(named)
        return named


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small.two_classes(tmp_path_factory.mktemp("health"))


@pytest.fixture
def watch(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Watch:
    torch.manual_seed(0)
    return Watch(settings, monkeypatch)


def dead() -> Net:
    net = deep(nn.ReLU)
    for layer in net.body.children():
        if isinstance(layer, nn.Linear):
            nn.init.constant_(layer.bias, -10)
    return net


def with_dropout(share: float) -> Net:
    """Enough is left of the network to learn slowly, or nearly nothing."""
    return Net(nn.Linear(8, 256), nn.ReLU(), nn.Dropout(share), nn.Linear(256, 2))


def mislabelled(x: Tensor) -> Tensor:
    """Two labels of five are drawn at random, whatever the row says."""
    return torch.where(torch.arange(len(x)) % 5 < 2, torch.arange(len(x)) % 2, side(x))


def some_labels_flipped(passes: int, batch: Batch) -> Batch:
    flip = (torch.arange(len(batch["label"])) % 8 == 0) & (passes == 7)
    return {**batch, "label": torch.where(flip, 1 - batch["label"], batch["label"])}


def ever_slower(passes: int, batch: Batch) -> Batch:
    time.sleep(0.03 if passes > 4 else 0)  # this is the fault, not a wait for something
    return batch


def hoarding() -> Callable[[int, Batch], Batch]:
    kept: dict[int, Tensor] = {}

    def keep(passes: int, batch: Batch) -> Batch:
        kept.setdefault(passes, torch.ones(4, 2**20))  # 16 MiB in every pass
        return batch

    return keep


PROVOKED: dict[str, Callable[[], dict[str, Any]]] = {
    "exploding_gradients": lambda: {"net": deep(nn.ReLU, 6, std=1.5), "lr": 1e-3},
    "vanishing_gradients": lambda: {"net": deep(nn.Sigmoid, 12)},
    "dead_units": lambda: {"net": dead()},
    "learning_rate_high": lambda: {"net": deep(nn.ReLU), "lr": 1e2},
    "learning_rate_low": lambda: {"net": deep(nn.ReLU), "lr": 1e-9},
    "weights_shrink": lambda: {"net": deep(nn.SiLU), "decay": 50.0},
    "dropout_high": lambda: {"net": with_dropout(0.97)},
    "loss_spike": lambda: {
        "net": deep(nn.SiLU),
        "train": Rows(512, side, change=some_labels_flipped),
        "epochs": 9,
    },
    "underfitting": lambda: {
        "net": Net(nn.Linear(8, 2)),
        "train": Rows(2048, xor),
        "val": Rows(256, xor),
    },
    "overfitting": lambda: {
        "net": deep(nn.Tanh, width=64),
        "train": Rows(20, noise),
        "val": Rows(256, noise, seed=1),
        "epochs": 60,
    },
    "slower": lambda: {
        "net": deep(nn.SiLU),
        "train": Rows(512, side, change=ever_slower),
        "epochs": 8,
    },
    "memory_growing": lambda: {
        "net": deep(nn.SiLU),
        "train": Rows(512, side, change=hoarding()),
        "epochs": 9,
    },
}


@pytest.mark.row("T5")
def test_what_was_provoked_is_named_and_nothing_else(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signs, "SECONDS", 0.0)
    for sign, arguments in PROVOKED.items():
        torch.manual_seed(0)
        watch = Watch(settings, monkeypatch)
        watch.health.limits["memory_growing"] = 0.05  # and not a fifth of what the libraries take
        if sign != "slower":
            watch.health.limits["slower"] = 0.0
        watch.fit(**arguments())
        assert watch.names() == [sign], watch.health.report()


@pytest.mark.row("T5")
def test_with_many_wrong_labels_it_says_what_it_cannot_tell(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch.fit(deep(nn.SiLU), Rows(2048, mislabelled), Rows(256, mislabelled, seed=1))
    assert watch.names() == [] and "wrong labels" in capsys.readouterr().err


@pytest.mark.row("T5")
def test_a_training_that_goes_well_is_quiet(
    watch: Watch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch.fit(with_dropout(0.5), decay=0.01, epochs=12)
    assert watch.names() == []
    assert capsys.readouterr().err == "  health: nothing to report\n"
    report = watch.health.report()
    assert [row["sign"] for row in report] == list(signs.SIGNS)
    measured = {row["sign"]: row["number"] for row in report}
    unmeasured = {"slower"}  # it took less than SECONDS
    assert {sign for sign, number in measured.items() if number is None} == unmeasured
    assert (
        0.01 < measured["exploding_gradients"] < 10 and 0.01 < measured["vanishing_gradients"] < 10
    )


class NanFrom(nn.Module):
    """Cross-entropy that is NaN from a call on: 16 training batches and 8 of validation are an
    epoch.
    """

    def __init__(self, call: int) -> None:
        super().__init__()
        self.calls, self.first = 0, call

    def forward(self, raw: Tensor, label: Tensor) -> Tensor:
        self.calls += self.training
        return nn.functional.cross_entropy(raw, label) * (
            float("nan") if self.calls >= self.first else 1
        )


@pytest.mark.row("T5")
def test_a_loss_that_is_not_finite_ends_training_with_its_place(watch: Watch) -> None:
    with pytest.raises(ValueError, match=r"in epoch 2, by step 32: try a tenth of optimizer\.lr"):
        watch.fit(deep(nn.SiLU), loss=NanFrom(20))
    assert [row["sign"] for row in watch.health.report() if row["epoch"]] == ["not_finite"]


@pytest.mark.row("T4", "T5")
def test_no_checkpoint_is_made_of_what_cannot_go_on(watch: Watch, tmp_path: Path) -> None:
    trainer = watch.fit(deep(nn.SiLU), epochs=1)
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    with torch.no_grad():
        next(trainer.lightning_module.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        trainer.save_checkpoint(tmp_path / "bad.ckpt")
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["good.ckpt"]


@pytest.mark.row("T4", "T5")
def test_a_resumed_training_knows_what_was_measured_and_named_before(
    watch: Watch, tmp_path: Path
) -> None:
    watch.fit(dead(), epochs=2).save_checkpoint(tmp_path / "last.ckpt")
    before, lines = watch.health.report(), len(watch.lines)
    watch.health = health.Health(watch.settings)
    watch.fit(dead(), epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert watch.names() == ["dead_units"] and len(watch.lines) == lines
    named = {row["sign"]: row["epoch"] for row in before}
    assert named == {row["sign"]: row["epoch"] for row in watch.health.report()}
    assert len(watch.health.history) == 4


@pytest.mark.row("T5", "E1")
def test_the_report_is_kept_with_the_run_and_beside_the_metrics(trained: Project) -> None:
    settings = trained.settings("optimizer.lr=1.0e-9", "trainer.max_epochs=3")
    found: dict[str, Any] = {"metrics": {}}
    run = SimpleNamespace(
        metrics=lambda values, prefix="", step=0: found["metrics"].update(
            {prefix + k: v for k, v in values.items()}
        ),
        text=lambda content, file: found.update({file: json.loads(content)}),
    )
    watched = health.Health(settings, run)
    fitted = module("training.fit").build_module(settings)
    small.fit(fitted, module("data.datamodule").DataModule(settings), watched, 3)
    assert [row["sign"] for row in found["health/health.json"] if row["epoch"]] == [
        "learning_rate_low"
    ]
    assert found["metrics"]["health.learning_rate_low"] < 1e-5
    report = json.loads((trained.folder / "reports" / "training.json").read_text(encoding="utf-8"))[
        "health"
    ]
    assert [row["sign"] for row in report] == list(signs.SIGNS)


def test_an_epochs_loss_and_score_are_means_over_its_rows(watch: Watch) -> None:
    """Also where its last batch is smaller: 32 rows and one."""
    net, rows = deep(nn.Tanh), Rows(33, side)
    trainer = watch.fit(net, rows, lr=0.0, epochs=1)
    batches: list[Batch] = list(rows)
    x = torch.cat([batch["inputs"]["x"] for batch in batches])
    label = torch.cat([batch["label"] for batch in batches])
    with torch.no_grad():
        raw = net(x)[0]
    loss, score = nn.functional.cross_entropy(raw, label), (raw.argmax(1) == label).float().mean()
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(trainer.callback_metrics["train/accuracy"]) == pytest.approx(float(score))

"""Every optimizer, scheduler and loss of configs/ trains, does what it is chosen for, and refuses
what it cannot do.
"""

from typing import Any

import lightning as L
import pytest
import small
import torch
import yaml
from harness import ROOT, module
from torch import nn

pytestmark = pytest.mark.row("T6")


def choice(group: str, name: str, **changed: object) -> dict[str, Any]:
    text = (ROOT / "configs" / group / f"{name}.yaml").read_text(encoding="utf-8")
    return {**yaml.safe_load(text), **changed}


class Rates(L.Callback):
    """The learning rate of every step, and the training loss of every epoch."""

    def __init__(self) -> None:
        self.rates, self.losses = list[float](), list[float]()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self, trainer: L.Trainer, fitted: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return small.two_classes(tmp_path_factory.mktemp("groups"))


def train(
    settings: Any, epochs: int = 4, answer: Any = small.side, **components: Any
) -> tuple[Rates, dict[str, Any]]:
    torch.manual_seed(0)
    seen, fitted = (
        Rates(),
        module("modeling.module").Module(
            settings.model_copy(update=components), small.deep(nn.SiLU)
        ),
    )
    small.fit(
        fitted, small.Data(small.Rows(512, answer), small.Rows(64, answer, seed=1)), seen, epochs
    )
    return seen, fitted.network.state_dict()


def test_every_optimizer_learns_and_each_goes_its_own_way(settings: Any) -> None:
    names = sorted(path.stem for path in (ROOT / "configs" / "optimizer").glob("*.yaml"))
    ends = []
    for name in names:
        seen, end = train(settings, optimizer=choice("optimizer", name))
        assert seen.losses[-1] < 0.7 * seen.losses[0], name
        slow, _ = train(settings, optimizer=choice("optimizer", name, lr=1e-9))
        assert slow.losses[-1] > 0.9 * slow.losses[0], name
        ends.append(end["body.0.weight"])
    assert len(names) >= 3
    assert all(not torch.allclose(a, b, rtol=0.01) for i, a in enumerate(ends) for b in ends[:i])


def test_every_scheduler_sets_the_rates_it_is_named_for(settings: Any) -> None:
    names = sorted(path.stem for path in (ROOT / "configs" / "scheduler").glob("*.yaml"))
    assert names == ["cosine", "none", "onecycle", "plateau"]

    def rates(
        name: str, answer: Any = small.side, epochs: int = 4, **changed: object
    ) -> list[float]:
        component = choice("scheduler", name, **changed)
        optimizer = choice("optimizer", "adamw", lr=0.01)
        return train(settings, epochs, answer, scheduler=component, optimizer=optimizer)[0].rates

    found = {name: rates(name) for name in names}
    assert found["none"] == [0.01] * 64
    cosine, onecycle = found["cosine"], found["onecycle"]
    assert (
        cosine.index(max(cosine)) in (5, 6)
        and max(cosine) == pytest.approx(0.01)
        and cosine[-1] < 2e-4
    )
    assert onecycle.index(max(onecycle)) in (18, 19) and onecycle[0] < 0.001 and onecycle[-1] < 1e-4
    flat = rates(
        "plateau", small.noise, epochs=12, patience=1
    )  # nothing to learn: the validation loss does not fall
    assert (
        found["plateau"] == [0.01] * 64
        and flat[0] == 0.01
        and flat[-1] in {0.01 * 0.5**k for k in range(2, 8)}
    )


def test_every_loss_trains_what_it_is_for_and_refuses_the_other(settings: Any) -> None:
    build = module("modeling.losses").build_loss
    for name in ("cross_entropy", "default", "focal", "label_smoothing"):
        component = choice("loss", name, **({"kind": "binary"} if name == "default" else {}))
        seen, _ = train(settings, loss=component)
        assert seen.losses[-1] < 0.9 * seen.losses[0], name
        with pytest.raises(ValueError, match="no loss for kind regression"):
            build(component, "regression", 2)


def test_losses_pull_in_the_direction_they_are_chosen_for(settings: Any) -> None:
    losses = module("modeling.losses")
    sure = torch.tensor([[4.0, 0.0]], requires_grad=True)  # and right

    def pull(loss: nn.Module) -> float:
        return float(torch.autograd.grad(loss(sure, torch.tensor([0])), sure)[0][0, 0])

    plain = pull(nn.CrossEntropyLoss())
    assert plain < 0 and abs(pull(losses.FocalLoss(2.0))) < 0.1 * abs(
        plain
    )  # what is easy counts less
    assert pull(nn.CrossEntropyLoss(label_smoothing=0.1)) > 0  # too sure


WRONG: list[tuple[str, str, dict[str, object], str]] = [
    ("optimizer", "adamw", {"lr": -1.0}, "Invalid learning rate"),
    ("scheduler", "cosine", {"warmup": 1.5}, "scheduler.warmup is a share"),
    ("scheduler", "plateau", {"factor": 1.5}, "Factor should be < 1.0"),
    ("loss", "focal", {"gamma": -1.0}, "loss.gamma must be 0"),
]


def test_a_wrong_value_is_refused_in_one_line(settings: Any) -> None:
    for group, name, changed, message in WRONG:
        component = choice(group, name, **changed)
        with pytest.raises(Exception, match=message) as caught:
            asked: dict[str, Any] = {"optimizer": choice("optimizer", "adamw"), group: component}
            train(settings, **asked)
        line = module("logs").explain(caught.value)
        assert line is not None and message in line.replace("\n", " ")


def test_what_a_cluster_sets_wrongly_is_a_line(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NTASKS": "4", "JOB_NAME": "mine", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE", raising=False)
    with pytest.raises(ValueError, match="Use `--ntasks-per-node=4` instead"):
        module("training.fit").make_trainer(settings, [], [], True)

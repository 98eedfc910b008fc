"""A study of Optuna: its trials, each a training in a run of its own, on a storage that several
workers share.
"""

import hashlib
import json
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from .. import logs, tracking
from ..params import compose
from ..provenance import data_version
from ..settings import LEARNS, LOWER_IS_BETTER, Dimension, Settings, parse

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from optuna import Study, Trial
    from optuna.trial import BaseTrial, FrozenTrial

DONE = ("COMPLETE", "PRUNED")


def configured(overrides: list[str]) -> Settings:
    return parse(yaml.safe_load(compose(overrides)))


def with_values(overrides: list[str], values: dict[str, Any]) -> list[str]:
    return [*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items())]


def suggest(trial: "BaseTrial", key: str, one: Dimension) -> None:
    """Lets the sampler choose a value of a dimension."""
    low = one.low
    high = one.high
    if low is None or high is None:
        trial.suggest_categorical(key, one.choices or [])
    elif isinstance(low, int) and isinstance(high, int):
        trial.suggest_int(key, low, high, step=int(one.step or 1), log=one.log)
    else:
        trial.suggest_float(key, low, high, step=one.step, log=one.log)


def fingerprint(settings: Settings) -> str:
    """SHA-256 over the data and all configuration that scores depend on, the space included."""
    content = settings.model_dump(mode="json", include={"seed", "data", *LEARNS})
    space = settings.model_dump(mode="json", include={"search": {"space"}})
    text = json.dumps([content | space, data_version(settings)])
    return hashlib.sha256(text.encode()).hexdigest()


def open_study(settings: Settings, name: str, lower: bool) -> "Study":
    """The study of that name in the storage; a trial whose worker died is tried once more."""
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    assert settings.search is not None
    address = os.path.expandvars(settings.search.storage)
    folder = settings.paths.state
    if "$" in address:
        raise ValueError(f"search.storage needs an environment variable: set that of {address}")
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "none": optuna.pruners.NopPruner(),
        "median": optuna.pruners.MedianPruner(n_warmup_steps=settings.search.warmup_epochs),
        "hyperband": optuna.pruners.HyperbandPruner(),
    }
    options: dict[str, Any] = {"pool_pre_ping": True}
    if address.startswith("sqlite:///"):
        Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        options["connect_args"] = {"timeout": 60}
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "study.lock"):  # several processes must not make one database at once
        storage = RDBStorage(
            address,
            options,
            heartbeat_interval=5,
            grace_period=20,  # seconds: a worker that says nothing for longer has died
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=5),
        )
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize" if lower else "maximize",
            pruner=pruners[settings.search.pruner],
            load_if_exists=True,
        )


class Sweep:
    """One worker's view of a study: what is shared lies in the storage."""

    def __init__(
        self, overrides: list[str], settings: Settings, name: str | None, until: float | None = None
    ) -> None:
        assert settings.search is not None
        self.overrides = overrides
        self.settings = settings
        self.search = settings.search
        self.deadline = until or time.time() + 60 * self.search.max_minutes
        self.metric = settings.data.goal.metric
        mark = fingerprint(settings)
        self.lower = self.metric in LOWER_IS_BETTER
        self.name = name or f"{settings.project.name}-{settings.data.name}-{mark[:8]}"
        self.study = open_study(settings, self.name, self.lower)
        if "fingerprint" not in self.study.user_attrs:
            self.study.set_user_attr("key", tracking.new_key())
            self.study.set_user_attr("fingerprint", mark)
        if self.study.user_attrs["fingerprint"] != mark:
            text = f"the study {self.name} has another configuration, space or data: choose another"
            raise ValueError(f"{text} --name")
        self.key: str = self.study.user_attrs["key"]

    def trials(self, *states: str) -> "list[FrozenTrial]":
        return [trial for trial in self.study.get_trials() if trial.state.name in states]

    def finished(self) -> str | None:
        """Why the search is over, None where it is not."""
        if len(self.trials(*DONE)) >= self.search.max_trials:
            return "the trial budget is spent"
        if time.time() > self.deadline:
            return "the time budget is spent"
        return "the goal is reached" if self.search.stop_at_goal and self.reached() else None

    def reached(self) -> bool:
        goal = self.settings.data.goal
        scores = [trial.value or 0.0 for trial in self.trials("COMPLETE")]
        if goal.at_most is not None:
            return any(score <= goal.at_most for score in scores)
        return any(score >= (goal.at_least or 0.0) for score in scores)

    def work(self) -> None:
        """Trials until a budget is spent."""
        if self.finished():
            return
        self.study.optimize(
            self.try_one,
            n_trials=2 * self.search.max_trials,  # where each of them fails
            catch=(Exception,),
            callbacks=[self.tell],
        )

    def try_one(self, trial: "Trial") -> float:
        """Trains one configuration as a child run; the goal's metric on the validation split."""
        from optuna import TrialPruned
        from optuna.samplers import TPESampler

        # By the trial's number, so that one worker draws the same again, and no two draw alike.
        seed = self.settings.seed * 100_003 + trial.number
        self.study.sampler = TPESampler(seed=seed, constant_liar=True)
        for key, dimension in self.search.space.items():
            suggest(trial, key, dimension)
        parent = tracking.attach(self.settings, self.key)
        tags = {"sweep.study": self.name, "sweep.trial": trial.number}
        title = f"trial {trial.number} on {self.settings.data.name}"
        for key, value in trial.params.items():
            title += f" {key}={value:.3g}" if isinstance(value, float) else f" {key}={value}"
        record = tracking.start(self.settings, title, parent, tags)
        try:
            with record:
                tracking.record_data(record, self.settings)
                try:
                    value = self.score(trial, record)
                    record.tags({"state": "COMPLETE"})
                    return value
                except TrialPruned as end:  # as it should: no failure of the run
                    pruned = end
                    record.tags({"state": "PRUNED", "reason": str(end)[:300]})
            trial.set_user_attr("reason", str(pruned)[:300])
            raise pruned
        except KeyboardInterrupt:
            self.study.enqueue_trial(trial.params)  # the next call takes it up again
            raise
        except TrialPruned:
            raise
        except Exception as error:
            reason = logs.explain(error) or f"{type(error).__name__}: {error}"
            trial.set_user_attr("reason", reason[:300])
            record.tags({"state": "FAIL", "reason": reason[:300]})
            raise

    def score(self, trial: "Trial", record: tracking.Run) -> float:
        from ..modeling.candidates import NetworkCandidate
        from ..training import fit

        settings = configured(with_values(self.overrides, trial.params))
        record.params(settings.model_dump(mode="json"))
        folder = settings.paths.state / "sweep" / record.key
        try:
            network = fit.fit_network(settings.below(folder), record, callbacks=[self.watch(trial)])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        metrics = fit.score(settings, NetworkCandidate(network), "val")
        record.metrics(metrics, "val.")
        return float(metrics[self.metric])

    def watch(self, trial: "Trial") -> "Callback":
        """Reports every epoch and ends the trial where the pruner, the time or the goal says so."""
        from lightning.pytorch.callbacks import LambdaCallback
        from optuna import TrialPruned

        def after_epoch(trainer: Any, _: Any) -> None:
            values = trainer.callback_metrics
            sign = 1 if self.lower else -1
            # The loss stands in for a metric that training does not follow.
            value = values.get(f"val/{self.metric}", sign * values["val/loss"])
            trial.report(float(value), trainer.current_epoch)
            if trial.should_prune():
                raise TrialPruned(f"behind the others after epoch {trainer.current_epoch + 1}")
            if self.search.stop_at_goal and self.reached():
                raise TrialPruned("the goal is reached")

        def after_batch(*_: Any) -> None:
            if time.time() > self.deadline:
                raise TrialPruned("the time budget is spent")

        return LambdaCallback(on_train_epoch_end=after_epoch, on_train_batch_end=after_batch)

    def tell(self, study: "Study", trial: "FrozenTrial") -> None:
        """A line for each trial; ends the search at a budget or the goal."""
        outcome = trial.user_attrs.get("reason") or f"{self.metric} {trial.value or 0:.4f}"
        text = "trial %d, %s: %s; %s"
        logs.get("sweep").info(text, trial.number, trial.state.name, outcome, trial.params)
        if self.finished():
            study.stop()

"""Trials of a search, on a storage that several workers share: none is lost, none is run twice.

Whoever runs a trial holds a lock with its number until it ends. A trial that is RUNNING and whose
lock is free has lost its worker: it waits again, with its number and parameters, and goes on in its
run.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import string
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy
import yaml
from filelock import FileLock, Timeout
from optuna import Trial, TrialPruned, pruners
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from .. import logs, tracking
from ..pipeline import compose
from ..provenance import data_version
from ..settings import LOWER_IS_BETTER, Dimension, Search, Settings, parse

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

LEARNS = (
    "augmentation",
    "loss",
    "model",
    "optimizer",
    "scheduler",
    "trainer",
    "training",
)  # what a space may name
MAX_DEATHS = 5  # of workers in one trial, after which it has failed


class Locks:
    """Locks by name that are free again when the process that holds one dies.

    Of workers on one machine these are files beside the SQLite database; else PostgreSQL's advisory
    locks.
    """

    def __init__(self, url: Any, scope: str) -> None:
        self.scope, self.folder = scope, None
        if url.get_backend_name() == "sqlite":
            self.folder = Path(f"{url.database}.locks")
            self.folder.mkdir(parents=True, exist_ok=True)
        else:  # without a pool, closing the connection ends the session and frees its locks
            self.engine = sqlalchemy.create_engine(
                url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT"
            )

    @contextlib.contextmanager
    def held(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Holds a lock, or gives False where another process does and we don't wait."""
        if self.folder is None:
            take = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
            query = sqlalchemy.text(f"SELECT {take}(hashtextextended(:name, 0))")
            with self.engine.connect() as connection:
                yield (
                    connection.execute(query, {"name": f"{self.scope} {name}"}).scalar()
                    is not False
                )
            return
        try:
            with FileLock(self.folder / f"{self.scope}-{name}", timeout=-1 if wait else 0):
                yield True
        except Timeout:
            yield False


def with_params(overrides: list[str], params: dict[str, Any]) -> list[str]:
    return [*overrides, *(f"{key}={json.dumps(value)}" for key, value in params.items())]


def configured(overrides: list[str]) -> Settings:
    return parse(yaml.safe_load(compose(overrides)))


def fingerprint(settings: Settings) -> str:
    """SHA-256 over the data and everything in the configuration that scores depend on, the space
    included.
    """
    content = settings.model_dump(mode="json", include={"seed", "data", *LEARNS})
    space = settings.search.model_dump(mode="json", include={"space"})
    return hashlib.sha256(json.dumps([content, space, data_version(settings)]).encode()).hexdigest()


def distribution(one: Dimension) -> BaseDistribution:
    if one.choices is not None:
        return CategoricalDistribution(one.choices)
    assert one.low is not None and one.high is not None
    if isinstance(one.low, int) and isinstance(one.high, int):
        return IntDistribution(one.low, one.high, one.log, int(one.step or 1))
    return FloatDistribution(one.low, one.high, one.log, one.step)


class Sweep:
    """One worker's view of a study: what is shared lies in the storage."""

    def __init__(
        self, overrides: list[str], settings: Settings, name: str | None, deadline: float
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.overrides, self.settings, self.deadline = overrides, settings, deadline
        search, mark = settings.search, fingerprint(settings)
        self.name = name or f"{settings.project.name}-{settings.data.name}-{mark[:8]}"
        self.metric, self.lower = (
            settings.data.goal.metric,
            settings.data.goal.metric in LOWER_IS_BETTER,
        )
        self.space = {key: distribution(one) for key, one in search.space.items()}
        url = sqlalchemy.make_url(filled(search.storage))
        self.locks = Locks(url, self.name)
        waits = (
            {"timeout": 60} if self.locks.folder else {}
        )  # seconds, where SQLite's file is locked
        with self.locks.held("claim"):
            self.storage = optuna.storages.RDBStorage(
                url.render_as_string(hide_password=False),
                {"connect_args": waits, "pool_pre_ping": True},
            )
            self.study = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                direction=StudyDirection.MINIMIZE if self.lower else StudyDirection.MAXIMIZE,
                pruner=pruner(search, settings.trainer.max_epochs),
                load_if_exists=True,
            )
            if "key" not in self.study.user_attrs:
                self.study.set_user_attr("fingerprint", mark)
                self.study.set_user_attr("key", f"sweep-{uuid.uuid4().hex}")
        if self.study.user_attrs["fingerprint"] != mark:
            raise ValueError(
                f"the study {self.name} has another configuration, space or data: choose another --name"
            )
        self.key: str = self.study.user_attrs[
            "key"
        ]  # of this study, also where one of its name was deleted

    def cut(self) -> str | None:
        """Why trials end at once, those that run included."""
        if time.time() > self.deadline:
            return "the time budget is spent"
        if self.settings.search.stop_at_goal and self.reached():
            return "the goal is reached"
        return None

    def reached(self) -> bool:
        goal, best = (
            self.settings.data.goal,
            self.study.best_value if self.ended("COMPLETE") else math.nan,
        )
        return best <= goal.at_most if goal.at_most is not None else best >= (goal.at_least or 0)

    def ended(self, *states: str) -> list[Any]:
        return [t for t in self.study.get_trials(deepcopy=False) if t.state.name in states]

    def spent(self) -> str | None:
        """Why no other trial begins."""
        trials = self.study.get_trials(deepcopy=False)
        if len(trials) >= self.settings.search.max_trials and not self.ended("WAITING"):
            return "the trial budget is spent"
        return self.cut()

    def take_up(self) -> None:
        """Trials whose workers died wait again, under their number and with their parameters."""
        for trial in self.ended("RUNNING"):
            with self.locks.held(f"trial-{trial.number}", wait=False) as dead:
                if not dead:
                    continue
                deaths = trial.user_attrs.get("deaths", 0) + 1
                state = TrialState.FAIL if deaths >= MAX_DEATHS else TrialState.WAITING
                self.storage.set_trial_user_attr(trial._trial_id, "deaths", deaths)
                self.storage.set_trial_user_attr(
                    trial._trial_id, "reason", f"its worker died {deaths} times"
                )
                self.storage.set_trial_state_values(trial._trial_id, state)
            logs.get("sweep").warning(
                "the worker of trial %d died: the trial is taken up again", trial.number
            )

    def ask(self) -> Trial:
        """The next trial; its parameters follow from seed, number and what is known by then."""
        waiting = self.ended("WAITING")
        number = waiting[0].number if waiting else len(self.study.get_trials(deepcopy=False))
        self.study.sampler = TPESampler(
            seed=self.settings.seed * 100_003 + number, constant_liar=True
        )
        return self.study.ask(self.space)

    def work(self) -> str:
        """Trials until a budget is spent; says which."""
        from ..training import fit  # noqa: F401  # now, so that the first trial's time is its own

        while True:
            with contextlib.ExitStack() as stack:
                with self.locks.held("claim"):
                    self.take_up()
                    reason = self.spent()
                    if reason:
                        return reason
                    trial = self.ask()
                    stack.enter_context(self.locks.held(f"trial-{trial.number}"))
                try:
                    self.run_trial(trial)
                except (KeyboardInterrupt, SystemExit):
                    with contextlib.suppress(
                        UpdateFinishedTrialError
                    ):  # where it had ended just before
                        self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
                    raise

    def run_trial(self, trial: Trial) -> None:
        """Trains one configuration as a child run, and tells its outcome."""
        state, value, reason, started = "COMPLETE", None, "", time.monotonic()
        folder = self.settings.paths.state / "sweep" / self.key / str(trial.number)
        settings = configured(with_params(self.overrides, trial.params))
        own = {name: folder / name for name in ("model", "reports", "state")}
        settings = settings.model_copy(update={"paths": settings.paths.model_copy(update=own)})
        parent = tracking.attach(settings, self.key)
        tags = {
            "sweep.study": self.name,
            "sweep.trial": trial.number,
            **tracking.provenance_tags(settings),
        }
        run = tracking.start(
            settings, f"trial {trial.number}", parent, tags, f"{self.key}-{trial.number}"
        )
        try:
            with run:
                run.params(settings.model_dump(mode="json"))
                try:
                    value = self.score(settings, trial, run)
                except TrialPruned as pruned:
                    state, reason = "PRUNED", str(pruned)
        except StorageInternalError:
            raise
        except Exception as error:
            state, reason = "FAIL", " ".join(f"{type(error).__name__}: {error}".split())[:300]
            run.text(traceback.format_exc(), "error.txt")
        run.tags({"state": state, "reason": reason})
        self.tell(trial, state, value, reason, time.monotonic() - started)
        shutil.rmtree(folder, ignore_errors=True)

    def score(self, settings: Settings, trial: Trial, run: tracking.Run) -> float:
        """The goal's metric on the validation split. Raises ValueError where it is not a number."""
        from ..data import datamodule
        from ..modeling import kinds
        from ..modeling.candidates import NetworkCandidate
        from ..training.fit import fit_network
        from ..types import Rule

        with contextlib.redirect_stderr(
            io.StringIO()
        ):  # a line per epoch would bury those of the trials
            network = NetworkCandidate(
                fit_network(settings, run, callbacks=[self.watch(trial)], resume=True)
            )
        val, kind = datamodule.load(settings, "val"), settings.data.kind
        found = kinds.of(kind).metrics(
            kinds.of(kind).decide(network.outputs(val.inputs).raw, Rule()), val.label
        )
        run.metrics(found, "val.")
        if not math.isfinite(found[self.metric]):
            raise ValueError(f"the validation {self.metric} is {found[self.metric]}")
        return found[self.metric]

    def watch(self, trial: Trial) -> "Callback":
        """Reports every epoch and ends the trial where the pruner, the time or the goal says so."""
        from lightning.pytorch.callbacks import LambdaCallback

        known = set(
            self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        )  # before its worker died

        def after_epoch(trainer: Any, _: Any) -> None:
            epoch, values = trainer.current_epoch, trainer.callback_metrics
            if trainer.sanity_checking or epoch in known:
                return
            own = values.get(
                f"val/{self.metric}"
            )  # the loss stands in for a metric that training doesn't follow
            trial.report(
                float(own if own is not None else values["val/loss"] * (1 if self.lower else -1)),
                epoch,
            )
            if trial.should_prune():
                raise TrialPruned(f"behind the others after epoch {epoch + 1}")
            if reason := self.cut():
                raise TrialPruned(reason)

        def after_batch(*_: Any) -> None:
            if time.time() > self.deadline:
                raise TrialPruned("the time budget is spent")

        return LambdaCallback(on_validation_end=after_epoch, on_train_batch_end=after_batch)

    def tell(
        self, trial: Trial, state: str, value: float | None, reason: str, seconds: float
    ) -> None:
        log = logs.get("sweep")
        with self.locks.held("claim"):
            if self.study.get_trials(deepcopy=False)[trial.number].state.name != "RUNNING":
                log.warning(
                    "trial %d was taken over while the storage was away: result dropped",
                    trial.number,
                )
                return
            trial.set_user_attr("seconds", round(seconds, 2))
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, value, state=TrialState[state])
            done, best = (
                self.ended("COMPLETE", "PRUNED", "FAIL"),
                self.ended("COMPLETE") and self.study.best_trial,
            )
        shown = f"{self.metric} {value:.4f}" if value is not None else f"{state}: {reason}"
        against = f"best {best.value:.4f} in trial {best.number}" if best else "none is best yet"
        params = " ".join(
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in trial.params.items()
        )
        counts = f"trial {trial.number} ({len(done)} of {self.settings.search.max_trials})"
        log.info("%s, %.1f s: %s; %s; %s", counts, seconds, shown, against, params)


def filled(storage: str) -> str:
    """The address with $NAME replaced from the environment."""
    try:
        return string.Template(storage).substitute(os.environ)
    except KeyError as error:
        raise ValueError(
            f"search.storage needs the environment variable {error.args[0]}: set it"
        ) from None


def pruner(search: Search, max_epochs: int) -> Any:
    if search.pruner == "hyperband":
        return pruners.HyperbandPruner(max_resource=max(max_epochs, 2))
    return (
        pruners.MedianPruner(n_warmup_steps=search.warmup_epochs)
        if search.pruner == "median"
        else pruners.NopPruner()
    )

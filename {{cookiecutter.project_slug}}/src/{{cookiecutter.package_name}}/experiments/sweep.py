"""Searches for the best configuration with Optuna, on the validation split: `sweep
trainer.max_epochs=30 --workers 2`.

It stops at the trial budget (of the study), the time budget (of this call) or the goal, whichever
is first; see configs/search. Workers that end their last trials at the same time may pass the trial
budget by one less than their number. The same command goes on with the same study, after a kill -9
too. Several machines take part when each runs it on one PostgreSQL storage.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from .. import logs, pages, params, tracking
from ..params import compose
from ..provenance import data_version, stamp, write_json
from ..settings import LOWER_IS_BETTER, Dimension, Settings, parse

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from optuna import Study, Trial
    from optuna.trial import BaseTrial, FrozenTrial

COMPOSES = True
# What a space may name: all else, scores do not depend on.
LEARNS = ("augmentation", "loss", "model", "optimizer", "scheduler", "trainer", "training")
PLOTS = ("optimization_history", "parallel_coordinate", "slice")
HEARTBEAT, GRACE = 5, 20  # seconds: a worker that says nothing for longer has died
PATIENCE = 60.0  # seconds that interrupted workers have to end their runs


def arguments(parser: argparse.ArgumentParser) -> None:
    text = "processes that try at the same time"
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=text)
    text = "of the study; without it, the name follows from configuration and data"
    parser.add_argument("--name", help=text)
    parser.add_argument("--worker", metavar="DEADLINE", type=float, help=argparse.SUPPRESS)


def run(_: Settings | None, args: argparse.Namespace) -> int:
    """Exit 0 when a budget is spent or the goal reached, and some trial gave a result."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    if args.workers < 1 or not re.fullmatch(r"[\w-]{1,80}", args.name or "_"):
        raise ValueError("--workers needs a number from 1 on, --name letters, numbers, - and _")
    chosen = any(word.startswith("search=") for word in args.overrides)
    overrides = args.overrides if chosen else ["search=default", *args.overrides]
    settings = configured(overrides)
    try:
        if args.worker:
            Sweep(overrides, settings, args.name, args.worker).work()
        else:
            check(overrides, settings)
            search(Sweep(overrides, settings, args.name), args.workers)
    except (ImportError, StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        remedy = "PostgreSQL needs the extra `postgres`; the same command goes on where it was"
        raise ValueError(f"search.storage does not answer: {cause}; {remedy}") from None
    return 0


def configured(overrides: list[str]) -> Settings:
    return parse(yaml.safe_load(compose(overrides)))


def with_values(overrides: list[str], values: dict[str, Any]) -> list[str]:
    return [*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items())]


def check(overrides: list[str], settings: Settings) -> None:
    """Raises ValueError of one line where the search cannot work, before anything runs."""
    from optuna.trial import FixedTrial

    assert settings.search is not None
    data, space = params.load().data, settings.search.space
    if (settings.data.name, settings.data.labels) != (data.name, data.labels):
        raise ValueError("the splits are of other data: run `make pipeline` with these first")
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError("a trial trains on one device: choose several --workers instead")
    if not space:
        raise ValueError("search.space is empty: give at least one key of the configuration")
    for key in space:
        if key.partition(".")[0] not in LEARNS:
            text = f"search.space.{key} is nothing that training depends on: it may name "
            raise ValueError(text + ", ".join(LEARNS))
    for key, one in space.items():
        try:
            suggest(FixedTrial({key: one.choices[0] if one.choices else one.low}), key, one)
        except ValueError as error:
            raise ValueError(f"search.space.{key}: {error}") from None
    for end in (0, -1):  # both ends of each dimension compose
        values = {key: (one.choices or [one.low, one.high])[end] for key, one in space.items()}
        configured(with_values(overrides, values))


def search(sweep: "Sweep", num_workers: int) -> None:
    """The search as a run of the tracker, with a report at its end."""
    with logs.stage("sweep") as log:
        log.info("study %s, %d trials so far", sweep.name, len(sweep.trials()))
        tags = {"sweep.study": sweep.name}
        name = f"sweep {sweep.name}"
        with tracking.start(sweep.settings, name, tags=tags, key=sweep.key) as record:
            if not record.resumed:
                tracking.record_inputs(record, sweep.settings)
            if num_workers == 1:
                sweep.work()
            else:
                supervise(sweep, num_workers)
            report(sweep, record)


def supervise(sweep: "Sweep", num_workers: int) -> None:
    """Workers in processes of their own until all have ended; when one dies, the others take up its
    trial. Raises ValueError where all do.
    """
    command = [sys.executable, "-m", __package__.partition(".")[0], "sweep", *sweep.overrides]
    command += ["--name", sweep.name, "--worker", str(sweep.deadline)]
    # In sessions of their own, so that a terminal's Ctrl-C reaches them once, by us.
    workers = [subprocess.Popen(command, start_new_session=True) for _ in range(num_workers)]
    try:
        codes = [worker.wait() for worker in workers]
    except KeyboardInterrupt:
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(PATIENCE)
            worker.kill()
        raise
    for code in filter(None, codes):
        logs.get("sweep").warning("a worker ended with exit code %s", code)
    if all(codes):
        raise ValueError("all workers have ended with an error: see above")


def suggest(trial: "BaseTrial", key: str, one: Dimension) -> None:
    """Lets the sampler choose a value of a dimension."""
    low, high = one.low, one.high
    if one.choices is not None:
        trial.suggest_categorical(key, one.choices)
    elif isinstance(low, int) and isinstance(high, int):
        trial.suggest_int(key, low, high, step=int(one.step or 1), log=one.log)
    else:
        assert low is not None and high is not None
        trial.suggest_float(key, low, high, step=one.step, log=one.log)


def fingerprint(settings: Settings) -> str:
    """SHA-256 over the data and all configuration that scores depend on, the space included."""
    content = settings.model_dump(mode="json", include={"seed", "data", *LEARNS})
    content |= settings.model_dump(mode="json", include={"search": {"space"}})
    text = json.dumps([content, data_version(settings)])
    return hashlib.sha256(text.encode()).hexdigest()


def open_study(settings: Settings, name: str, lower: bool) -> "Study":
    """The study of that name in the storage; a trial whose worker died is tried once more."""
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    assert settings.search is not None
    address = os.path.expandvars(settings.search.storage)
    if "$" in address:
        raise ValueError(f"search.storage needs an environment variable: set that of {address}")
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if settings.search.pruner == "median":
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=settings.search.warmup_epochs)
    elif settings.search.pruner == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(max_resource=max(settings.trainer.max_epochs, 2))
    lock: Any = contextlib.nullcontext()
    options: dict[str, Any] = {"pool_pre_ping": True}
    if address.startswith("sqlite:///"):
        file = Path(address.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        lock, options["connect_args"] = FileLock(f"{file}.lock"), {"timeout": 60}
    with lock:  # several processes must not make one SQLite database at once
        storage = RDBStorage(
            address,
            options,
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=5),
        )
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize" if lower else "maximize",
            pruner=pruner,
            load_if_exists=True,
        )


class Sweep:
    """One worker's view of a study: what is shared lies in the storage."""

    def __init__(
        self, overrides: list[str], settings: Settings, name: str | None, until: float | None = None
    ) -> None:
        assert settings.search is not None
        self.overrides, self.settings, self.search = overrides, settings, settings.search
        self.deadline = until or time.time() + 60 * self.search.max_minutes
        self.metric, mark = settings.data.goal.metric, fingerprint(settings)
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
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if not states or t.state.name in states]

    def finished(self) -> str | None:
        """Why the search is over, None where it is not."""
        if len(self.trials("COMPLETE", "PRUNED")) >= self.search.max_trials:
            return "the trial budget is spent"
        if time.time() > self.deadline:
            return "the time budget is spent"
        if self.search.stop_at_goal and self.reached():
            return "the goal is reached"
        return None

    def reached(self) -> bool:
        if not self.trials("COMPLETE"):
            return False
        goal, best = self.settings.data.goal, self.study.best_value
        return best <= goal.at_most if goal.at_most is not None else best >= (goal.at_least or 0)

    def work(self) -> None:
        """Trials until a budget is spent."""
        from optuna.study import MaxTrialsCallback
        from optuna.trial import TrialState

        if self.finished():
            return
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        self.study.optimize(
            self.try_one,
            n_trials=2 * self.search.max_trials,  # where each of them fails
            timeout=max(0.0, self.deadline - time.time()),
            catch=(Exception,),
            callbacks=[MaxTrialsCallback(self.search.max_trials, states), self.tell],
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
        folder = self.settings.paths.state / "sweep" / self.key / str(trial.number)
        parent = tracking.attach(self.settings, self.key)
        tags = {"sweep.study": self.name, "sweep.trial": trial.number}
        tags |= tracking.provenance_tags(self.settings)
        record = tracking.start(self.settings, f"trial {trial.number}", parent, tags)
        try:
            with record:
                value = self.score(trial, record, folder)
                record.tags({"state": "COMPLETE"})
                return value
        except KeyboardInterrupt:
            self.study.enqueue_trial(trial.params)  # the next call takes it up again
            raise
        except Exception as error:
            pruned = isinstance(error, TrialPruned)
            reason = str(error) if pruned else f"{type(error).__name__}: {error}"
            reason = " ".join(reason.split())[:300]
            trial.set_user_attr("reason", reason)
            record.tags({"state": "PRUNED" if pruned else "FAIL", "reason": reason})
            if pruned:
                record.finish()
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def score(self, trial: "Trial", record: tracking.Run, folder: Path) -> float:
        from ..data.datamodule import load
        from ..modeling import kinds
        from ..modeling.candidates import NetworkCandidate
        from ..training.fit import fit_network
        from ..types import Rule

        settings = configured(with_values(self.overrides, trial.params))
        record.params(settings.model_dump(mode="json"))
        places = {"state": folder, "model": folder / "model", "reports": folder / "reports"}
        paths = settings.paths.model_copy(update=places)
        settings = settings.model_copy(update={"paths": paths})
        network = fit_network(settings, record, callbacks=[self.watch(trial)])
        val = load(settings, "val")
        raw = NetworkCandidate(network).outputs(val.inputs).raw
        kind = kinds.of(settings.data.kind)
        metrics = kind.metrics(kind.decide(raw, Rule()), val.label)
        record.metrics(metrics, "val.")
        return metrics[self.metric]

    def watch(self, trial: "Trial") -> "Callback":
        """Reports every epoch and ends the trial where the pruner, the time or the goal says so."""
        from lightning.pytorch.callbacks import LambdaCallback
        from optuna import TrialPruned

        def after_epoch(trainer: Any, _: Any) -> None:
            if trainer.sanity_checking:
                return
            values, sign = trainer.callback_metrics, 1 if self.lower else -1
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

        return LambdaCallback(on_validation_end=after_epoch, on_train_batch_end=after_batch)

    def tell(self, study: "Study", trial: "FrozenTrial") -> None:
        """A line for each trial; ends the search at the goal."""
        outcome = trial.user_attrs.get("reason") or f"{self.metric} {trial.value or 0:.4f}"
        text = "trial %d, %s: %s; %s"
        logs.get("sweep").info(text, trial.number, trial.state.name, outcome, trial.params)
        if self.finished():
            study.stop()


def report(sweep: Sweep, record: tracking.Run) -> None:
    """Table, reports/sweep.json, plots and the experiment file. Raises ValueError where no trial
    gave a result.
    """
    reason = sweep.finished() or "the workers have ended"
    trials, folder = [row(trial) for trial in sweep.trials()], sweep.settings.paths.reports
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    if not complete:
        last = next((t["reason"] for t in reversed(trials) if t["reason"]), "none ended")
        raise ValueError(f"{reason}, and no trial gave a result; the last one: {last}")
    best = sweep.study.best_trial
    content = {
        "study": sweep.name,
        "metric": sweep.metric,
        "lower_is_better": sweep.lower,
        "stopped": reason,
        "best": row(best),
        "trials": trials,
        "provenance": stamp(sweep.settings, "train"),
    }
    write_json(folder / "sweep.json", content)
    draw(sweep, folder / "sweep")
    record.metrics({f"best.{sweep.metric}": sweep.study.best_value})
    record.tags({"sweep.best": best.number, "sweep.stopped": reason})
    record.artifacts([folder / "sweep.json", folder / "sweep"], "sweep")
    complete.sort(key=lambda trial: trial["score"], reverse=not sweep.lower)
    rows = [[t["number"], f"{t['score']:.4f}", *t["params"].values()] for t in complete[:10]]
    columns = ["trial", sweep.metric, *best.params]
    pages.print_table(f"best trials of {sweep.name}", columns, [list(map(str, r)) for r in rows])
    text = "%s: %s %.4f in trial %d of %d"
    logs.get("sweep").info(text, reason, sweep.metric, best.value, best.number, len(trials))
    write_experiment(sweep)


def row(trial: "FrozenTrial") -> dict[str, Any]:
    """A trial for the report."""
    return {
        "number": trial.number,
        "state": trial.state.name,
        "score": trial.value,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "epochs": len(trial.intermediate_values),
        "reason": trial.user_attrs.get("reason", ""),
        "params": trial.params,
    }


def draw(sweep: Sweep, folder: Path) -> None:
    """Best so far, parallel coordinates and slices, one picture each."""
    import matplotlib

    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as plots

    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of axes with a single value
        for name in PLOTS:
            getattr(plots, f"plot_{name}")(sweep.study, target_name=sweep.metric)
            path, save = folder / f"{name}.png", matplotlib.pyplot.savefig
            save(path, dpi=130, bbox_inches="tight", metadata={"Software": None})
            matplotlib.pyplot.close("all")


def write_experiment(sweep: Sweep) -> None:
    """Writes the best configuration as an experiment file, if it can say what made the trial."""
    from omegaconf import OmegaConf

    best, name = sweep.study.best_trial, f"search_{sweep.name}"
    words = [w for w in sweep.overrides if not w.startswith("search")]
    words = with_values(words, best.params)
    groups = dict(w.split("=", 1) for w in words if Path("configs", w.partition("=")[0]).is_dir())
    values = OmegaConf.from_dotlist([w for w in words if w.partition("=")[0] not in groups])
    defaults: list[Any] = [groups.pop("experiment")] if "experiment" in groups else []
    defaults += ["_self_", *({f"override /{key}": yaml.safe_load(v)} for key, v in groups.items())]
    content = {"defaults": defaults, **yaml.safe_load(OmegaConf.to_yaml(values))}
    path, log = Path("configs/experiment") / f"{name}.yaml", logs.get("sweep")
    head = f"# @package _global_\n# Written by the search: make pipeline EXPERIMENT={name}\n"
    if path.is_file() and not path.read_text(encoding="utf-8").startswith(head):
        log.warning("%s is somebody else's: use OVERRIDES='%s'", path, " ".join(words))
        return
    score = f"# trial {best.number}, validation {sweep.metric} {best.value:.4f}\n"
    path.write_text(head + score + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    if compose([f"experiment={name}"]) == compose(words):
        log.info("to train it: make pipeline EXPERIMENT=%s", name)
    else:
        path.unlink()
        log.warning("to train it: make pipeline OVERRIDES='%s'", " ".join(words))

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
import math
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from .. import logs, pages, params, tracking
from ..pipeline import compose
from ..provenance import data_version, stamp, write_json
from ..settings import LOWER_IS_BETTER, Dimension, Settings, parse

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

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
    overrides: list[str] = args.overrides
    if not any(word.startswith("search=") for word in overrides):
        overrides = ["search=default", *overrides]
    settings = configured(overrides)
    if args.workers < 1 or not re.fullmatch(r"[\w-]{1,80}", args.name or "_"):
        raise ValueError("--workers needs a number from 1 on, --name letters, numbers, - and _")
    with explained():
        if args.worker:
            Sweep(overrides, settings, args.name, args.worker).work()
            return 0
        check(overrides, settings)
        with logs.stage("sweep") as log:
            sweep = Sweep(overrides, settings, args.name, deadline(settings))
            log.info("study %s, %d trials so far", sweep.name, len(sweep.trials()))
            tags = {"sweep.study": sweep.name}
            name = f"sweep {sweep.name}"
            with tracking.start(settings, name, tags=tags, key=sweep.key) as record:
                if not record.resumed:
                    tracking.record_inputs(record, settings)
                if args.workers == 1:
                    sweep.work()
                else:
                    supervise(sweep, args.workers)
                report(sweep, record)
    return 0


def configured(overrides: list[str]) -> Settings:
    return parse(yaml.safe_load(compose(overrides)))


def deadline(settings: Settings) -> float:
    assert settings.search is not None
    return time.time() + 60 * settings.search.max_minutes


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What goes wrong between us and the storage, as a ValueError of one line."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        text = f"search.storage needs a driver, such as the extra `postgres`: {error}"
        raise ValueError(text) from None
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        text = f"search.storage does not answer: {cause}; the same command goes on where it was"
        raise ValueError(text) from None


def check(overrides: list[str], settings: Settings) -> None:
    """Raises ValueError of one line where the search cannot work, before anything runs."""
    assert settings.search is not None
    pipeline, space = params.load(), settings.search.space
    if (settings.data.name, settings.data.labels) != (pipeline.data.name, pipeline.data.labels):
        text = "search on the data of params.yaml: run `make pipeline` with the other data first"
        raise ValueError(text)
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError("a trial trains on one device: choose several --workers instead")
    for key in space:
        if key.partition(".")[0] not in LEARNS:
            text = f"search.space.{key} is nothing that training depends on: it may name "
            raise ValueError(text + ", ".join(LEARNS))
    for pick in (0, -1):  # both ends of each dimension compose
        values = {key: (one.choices or [one.low, one.high])[pick] for key, one in space.items()}
        configured(with_values(overrides, values))


def with_values(overrides: list[str], values: dict[str, Any]) -> list[str]:
    return [*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items())]


def suggest(trial: "Trial", key: str, one: Dimension) -> None:
    """Lets the sampler choose a value of a dimension."""
    if one.choices is not None:
        trial.suggest_categorical(key, one.choices)
    elif isinstance(one.low, int) and isinstance(one.high, int):
        trial.suggest_int(key, one.low, one.high, step=int(one.step or 1), log=one.log)
    else:
        assert one.low is not None and one.high is not None
        trial.suggest_float(key, one.low, one.high, step=one.step, log=one.log)


def fingerprint(settings: Settings) -> str:
    """SHA-256 over the data and all configuration that scores depend on, the space included."""
    assert settings.search is not None
    content = settings.model_dump(mode="json", include={"seed", "data", *LEARNS})
    space = settings.search.model_dump(mode="json", include={"space"})
    text = json.dumps([content, space, data_version(settings)])
    return hashlib.sha256(text.encode()).hexdigest()


def open_study(settings: Settings, name: str, lower: bool) -> "Study":
    """The study of that name in the storage; a trial whose worker died is tried once more."""
    import optuna
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner
    from optuna.storages import RDBStorage, RetryFailedTrialCallback

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    search = settings.search
    assert search is not None
    address = filled(search.storage)
    file = address.removeprefix("sqlite:///") if address.startswith("sqlite:///") else None
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    pruner = MedianPruner(n_warmup_steps=search.warmup_epochs)
    hyperband = HyperbandPruner(max_resource=max(settings.trainer.max_epochs, 2))
    pruners = {"median": pruner, "hyperband": hyperband, "none": NopPruner()}
    # Several processes must not make one SQLite database at once.
    with FileLock(f"{file}.lock") if file else contextlib.nullcontext():
        storage = RDBStorage(
            address,
            {"connect_args": {"timeout": 60} if file else {}, "pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryFailedTrialCallback(5, True),
        )
        return optuna.create_study(
            storage=storage,
            study_name=name,
            direction="minimize" if lower else "maximize",
            pruner=pruners[search.pruner],
            load_if_exists=True,
        )


def filled(storage: str) -> str:
    """The address with $NAME replaced from the environment."""
    try:
        return string.Template(storage).substitute(os.environ)
    except KeyError as error:
        text = f"search.storage needs the environment variable {error.args[0]}: set it"
        raise ValueError(text) from None


class Sweep:
    """One worker's view of a study: what is shared lies in the storage."""

    def __init__(
        self, overrides: list[str], settings: Settings, name: str | None, deadline: float
    ) -> None:
        assert settings.search is not None
        self.overrides, self.settings, self.search = overrides, settings, settings.search
        self.deadline, self.metric = deadline, settings.data.goal.metric
        self.lower, mark = self.metric in LOWER_IS_BETTER, fingerprint(settings)
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
        goal = self.settings.data.goal
        best = self.study.best_value if self.trials("COMPLETE") else math.nan
        return best <= goal.at_most if goal.at_most is not None else best >= (goal.at_least or 0)

    def work(self) -> None:
        """Trials until a budget is spent."""
        from optuna.samplers import TPESampler
        from optuna.study import MaxTrialsCallback
        from optuna.trial import TrialState

        if self.finished():
            return
        # Another seed for each call, else it would draw what the one before has drawn.
        seed = self.settings.seed * 100_003 + len(self.trials()) + os.getpid() % 997
        self.study.sampler = TPESampler(seed=seed, constant_liar=True)
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        budget = MaxTrialsCallback(self.search.max_trials, states)
        left = max(0.0, self.deadline - time.time())
        self.study.optimize(
            self.try_one,
            n_trials=2 * self.search.max_trials,  # where each of them fails
            timeout=left,
            catch=(ArithmeticError, RuntimeError, TypeError, ValueError),
            callbacks=[budget, self.tell],
        )

    def try_one(self, trial: "Trial") -> float:
        """Trains one configuration as a child run; the goal's metric on the validation split."""
        from optuna import TrialPruned

        for key, dimension in self.search.space.items():
            suggest(trial, key, dimension)
        settings = self.settings_of(trial)
        parent = tracking.attach(settings, self.key)
        tags = {"sweep.study": self.name, "sweep.trial": trial.number}
        tags |= tracking.provenance_tags(settings)
        name, key = f"trial {trial.number}", f"{self.key}-{trial.number}"
        pruned, value = None, math.nan
        try:
            with tracking.start(settings, name, parent, tags, key) as record:
                record.params(settings.model_dump(mode="json"))
                try:
                    value = self.score(settings, trial, record)
                except TrialPruned as error:
                    pruned = error
                record.tags({"state": "PRUNED" if pruned else "COMPLETE", "reason": pruned or ""})
        except KeyboardInterrupt:
            self.study.enqueue_trial(trial.params)  # the next call takes it up again
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            trial.set_user_attr("reason", reason)
            raise
        finally:
            shutil.rmtree(settings.paths.state, ignore_errors=True)
        if pruned:
            trial.set_user_attr("reason", str(pruned))
            raise pruned
        return value

    def settings_of(self, trial: "Trial") -> Settings:
        """The trial's configuration; what it writes lies in a folder of its own."""
        settings = configured(with_values(self.overrides, trial.params))
        folder = self.settings.paths.state / "sweep" / self.key / str(trial.number)
        paths = {"state": folder, "model": folder / "model", "reports": folder / "reports"}
        return settings.model_copy(update={"paths": settings.paths.model_copy(update=paths)})

    def score(self, settings: Settings, trial: "Trial", record: tracking.Run) -> float:
        """Raises ValueError where the metric is not a number."""
        from ..data.datamodule import load
        from ..modeling import kinds
        from ..modeling.candidates import NetworkCandidate
        from ..training.fit import fit_network
        from ..types import Rule

        network = fit_network(settings, record, callbacks=[self.watch(trial)])
        val, kind = load(settings, "val"), kinds.of(settings.data.kind)
        raw = NetworkCandidate(network).outputs(val.inputs).raw
        metrics = kind.metrics(kind.decide(raw, Rule()), val.label)
        record.metrics(metrics, "val.")
        if not math.isfinite(metrics[self.metric]):
            raise ValueError(f"the validation {self.metric} is {metrics[self.metric]}")
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
        log, values = logs.get("sweep"), trial.params.items()
        params = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values)
        if trial.value is None:
            outcome = f"{trial.state.name}: {trial.user_attrs.get('reason', '')}"
        else:
            best = study.best_trial
            outcome = f"{self.metric} {trial.value:.4f}; best {best.value:.4f} in {best.number}"
        log.info("trial %d, %s; %s", trial.number, outcome, params)
        if self.finished():
            study.stop()


def supervise(sweep: Sweep, num_workers: int) -> None:
    """Workers in processes of their own until all have ended; when one dies, the others take up its
    trial. Raises ValueError where all do.
    """
    command = [sys.executable, "-m", __package__.partition(".")[0], "sweep", *sweep.overrides]
    command += ["--name", sweep.name, "--worker", str(sweep.deadline)]
    workers = [subprocess.Popen(command) for _ in range(num_workers)]
    try:
        codes = [worker.wait() for worker in workers]
    except KeyboardInterrupt:
        for worker in workers:  # a terminal's Ctrl-C has reached them already
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
    columns = ["trial", sweep.metric, *complete[0]["params"]]
    pages.print_table(f"best trials of {sweep.name}", columns, [[str(x) for x in r] for r in rows])
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
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of axes with a single value
        for name in PLOTS:
            getattr(plots, f"plot_{name}")(sweep.study, target_name=sweep.metric)
            path = folder / f"{name}.png"
            plt.savefig(path, dpi=130, bbox_inches="tight", metadata={"Software": None})
            plt.close("all")


def write_experiment(sweep: Sweep) -> None:
    """Writes the best configuration as an experiment file, if it can say what composed the trial."""
    from omegaconf import OmegaConf

    best, name = sweep.study.best_trial, f"search_{sweep.name}"
    words = [w for w in sweep.overrides if not w.startswith("search")]
    words = with_values(words, best.params)
    groups = [w.split("=", 1) for w in words if Path("configs", w.partition("=")[0]).is_dir()]
    keys = {key for key, _ in groups}
    values = OmegaConf.from_dotlist([w for w in words if w.partition("=")[0] not in keys])
    defaults: list[Any] = [value for key, value in groups if key == "experiment"]
    defaults += ["_self_", *({f"override /{k}": v} for k, v in groups if k != "experiment")]
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

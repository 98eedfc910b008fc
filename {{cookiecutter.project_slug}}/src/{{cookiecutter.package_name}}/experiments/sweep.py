"""Searches for the best configuration with Optuna, on the validation split: `sweep
trainer.max_epochs=30 --workers 2`.

It stops at the trial budget (of the study), the time budget (of this call) or the goal, whichever
is first; see configs/search. Workers that end their last trials at the same time may pass the trial
budget by one less than their number. The same command goes on with the same study, after a kill -9
too. Several machines take part when each runs it on one PostgreSQL storage.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .. import logs, pages, params, tracking
from ..params import compose
from ..provenance import stamp, write_json
from ..settings import Settings
from .study import LEARNS, Sweep, configured, suggest, with_values

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

COMPOSES = True
PLOTS = ("optimization_history", "parallel_coordinate", "slice")
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

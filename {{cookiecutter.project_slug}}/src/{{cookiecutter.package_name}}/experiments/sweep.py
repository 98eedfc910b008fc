"""Searches for the best configuration with Optuna, on the validation split: `sweep
trainer.max_epochs=30 --workers 2`.

It stops at the trial budget (of the study), the time budget (of this call) or the goal, whichever
is first; see configs/search. Workers that end their last trials at the same time may pass the trial
budget by one less than their number. The same command goes on with the same study, after a kill -9
too. Several machines take part when each runs it on one PostgreSQL storage.
"""

import argparse
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml

from .. import logs, pages, params, tracking
from ..provenance import stamp, write_json
from ..settings import LEARNS, Settings
from .study import Sweep, configured, suggest, with_values

COMPOSES = True
PLOTS = ("optimization_history", "parallel_coordinate", "slice")


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

    params.check_trainable(settings)
    space = settings.search.space
    names = ", ".join(LEARNS)
    if not space:
        raise ValueError("search.space is empty: give at least one key of the configuration")
    ends = {key: one.choices or [one.low, one.high] for key, one in space.items()}
    for key, one in space.items():
        if key.partition(".")[0] not in LEARNS:
            raise ValueError(
                f"search.space.{key} is nothing that training depends on: it may name {names}"
            )
        try:
            suggest(FixedTrial({key: ends[key][0]}), key, one)
        except ValueError as error:
            raise ValueError(f"search.space.{key}: {error}") from None
    for end in (0, -1):  # both ends of each dimension compose
        configured(with_values(overrides, {key: values[end] for key, values in ends.items()}))


def search(sweep: Sweep, num_workers: int) -> None:
    """The search as a run of the tracker, with a report at its end."""
    with logs.stage("sweep") as log:
        log.info("study %s", sweep.name)
        name = f"sweep of {', '.join(sweep.search.space)} on {sweep.settings.data.name}"
        tags = {"sweep.study": sweep.name}
        with tracking.start(sweep.settings, name, tags=tags, key=sweep.key) as record:
            if not record.resumed:
                tracking.record_inputs(record, sweep.settings)
            if num_workers == 1:
                sweep.work()
            else:
                supervise(sweep, num_workers)
            report(sweep, record)


def supervise(sweep: Sweep, num_workers: int) -> None:
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
            worker.wait()
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
    folder = sweep.settings.paths.reports
    trials = [row(trial) for trial in sweep.study.get_trials()]
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    if not complete:
        last = trials[-1]["reason"] if trials else "none ended"
        raise ValueError(f"{reason}, and no trial gave a result; the last one: {last}")
    complete.sort(key=lambda trial: trial["score"], reverse=not sweep.lower)
    content = {
        "study": sweep.name,
        "metric": sweep.metric,
        "lower_is_better": sweep.lower,
        "stopped": reason,
        "best": complete[0],
        "trials": trials,
        "provenance": stamp(sweep.settings, "train"),
    }
    write_json(folder / "sweep.json", content)
    draw(sweep, folder / "sweep")
    number = complete[0]["number"]
    score = complete[0]["score"]
    record.metrics({f"best.{sweep.metric}": score})
    record.tags({"sweep.best": number, "sweep.stopped": reason})
    record.artifacts([folder / "sweep.json", folder / "sweep"], "sweep")
    best = pages.table({sweep.metric: t["score"], **t["params"]} for t in complete[:10])
    pages.print_table(f"best trials of {sweep.name}", best.columns, best.rows)
    text = "%s: %s %.4f in trial %d of %d; to train it: make pipeline EXPERIMENT=%s"
    experiment = write_experiment(sweep, complete[0])
    logs.get("sweep").info(text, reason, sweep.metric, score, number, len(trials), experiment)


def row(trial: Any) -> dict[str, Any]:
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
            matplotlib.pyplot.savefig(folder / f"{name}.png", dpi=130, bbox_inches="tight")
            matplotlib.pyplot.close("all")


def write_experiment(sweep: Sweep, best: dict[str, Any]) -> str:
    """Writes the best configuration as an experiment file; its name."""
    from omegaconf import OmegaConf

    words = [word for word in sweep.overrides if not word.startswith("search")]
    chosen = dict(word.split("=", 1) for word in with_values(words, best["params"]))
    groups = {key: chosen.pop(key) for key in [*chosen] if Path("configs", key).is_dir()}
    defaults: list[Any] = [groups.pop("experiment")] if "experiment" in groups else []
    defaults += ["_self_", *({f"override /{key}": yaml.safe_load(groups[key])} for key in groups)]
    values = OmegaConf.from_dotlist([f"{key}={text}" for key, text in chosen.items()])
    content = {"defaults": defaults, **yaml.safe_load(OmegaConf.to_yaml(values))}
    name = f"search_{sweep.name}"
    head = (
        f"# @package _global_\n# Written by the search: trial {best['number']}, {best['score']}\n"
    )
    path = Path(f"configs/experiment/{name}.yaml")
    path.write_text(head + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return name

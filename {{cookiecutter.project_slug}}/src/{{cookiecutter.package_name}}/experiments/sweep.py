"""Searches for the best configuration with Optuna, on the validation split: `sweep
trainer.max_epochs=30 --workers 2`.

It stops at the trial budget (over all workers and calls), the time budget (of this call) or the
goal; see configs/search. The same command goes on with the same study, after a kill -9 too. Several
machines take part when each runs it on one PostgreSQL storage.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from _thread import interrupt_main
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .. import logs, tracking
from ..params import load
from ..pipeline import compose
from ..provenance import stamp, write_json
from ..settings import Settings, parse

if TYPE_CHECKING:
    from .trials import Sweep

COMPOSES = True
PATIENCE = 60.0  # seconds that interrupted workers have to end their runs
DEATHS = 5  # of workers, on average, after which the search gives up
PLOTS = ("optimization_history", "parallel_coordinate", "slice")
SHOWN = 10  # rows of the table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that try at the same time"
    )
    parser.add_argument(
        "--name", help="of the study; without it, the name follows from configuration and data"
    )
    parser.add_argument("--worker", metavar="DEADLINE", type=float, help=argparse.SUPPRESS)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What goes wrong between us and the storage, as a ValueError of one line."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"search.storage needs a driver, such as the extra `postgres`: {error}"
        ) from None
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(
            f"search.storage does not answer: {cause}; the same command goes on where it was"
        ) from None


def run(_: Settings | None, args: argparse.Namespace) -> int:
    """Exit 0 when a budget is spent or the goal reached, and some trial gave a result."""
    settings = parse(yaml.safe_load(compose(args.overrides)))
    if args.workers < 1 or not re.fullmatch(r"[\w-]{1,80}", args.name or "_"):
        raise ValueError("--workers needs a number from 1 on, --name letters, numbers, - and _")
    from .trials import Sweep

    with explained():
        if args.worker:
            signal.signal(
                signal.SIGINT, signal.default_int_handler
            )  # a background job would ignore it
            threading.Thread(target=end_with_parent, daemon=True).start()
            Sweep(args.overrides, settings, args.name, args.worker).work()
            return 0
        check(args.overrides, settings)
        with logs.stage("sweep") as log:
            sweep = Sweep(
                args.overrides, settings, args.name, time.time() + 60 * settings.search.max_minutes
            )
            log.info(
                "study %s, %d trials so far",
                sweep.name,
                len(sweep.study.get_trials(deepcopy=False)),
            )
            tags = {"sweep.study": sweep.name}
            opened = tracking.start(settings, f"sweep {sweep.name}", tags=tags, key=sweep.key)
            with opened as record:
                if not record.resumed:  # the first call of this study
                    tracking.record_inputs(record, settings)
                reason = sweep.work() if args.workers == 1 else supervise(args, sweep)
                report(sweep, record, reason)
    return 0


def end_with_parent() -> None:
    """A worker's standard input ends when the process that started it does, or wants it to."""
    sys.stdin.read()
    while True:  # again where one was lost, as in a finalizer, whose exceptions Python ignores
        interrupt_main()
        time.sleep(PATIENCE / 4)


def check(overrides: list[str], settings: Settings) -> None:
    """Raises ValueError of one line where the search cannot work, before anything runs."""
    from .trials import LEARNS, configured, with_params

    here, space = load(), settings.search.space
    if (settings.data.name, settings.data.labels) != (here.data.name, here.data.labels):
        raise ValueError(
            "search on the data of params.yaml: run `make pipeline` with the other data first"
        )
    if str(settings.trainer.devices) != "1" or settings.trainer.num_nodes != 1:
        raise ValueError(
            "a trial trains on one device: choose trainer=cpu or trainer=gpu, and several --workers"
        )
    for key in space:
        if key.partition(".")[0] not in LEARNS:
            raise ValueError(
                f"search.space.{key} is nothing that training depends on: it may name {', '.join(LEARNS)}"
            )
    tries = {key: one.choices or [one.low, one.high] for key, one in space.items()}
    for i in range(max(map(len, tries.values()))):
        configured(
            with_params(overrides, {key: values[i % len(values)] for key, values in tries.items()})
        )


def supervise(args: argparse.Namespace, sweep: "Sweep") -> str:
    """Workers in processes of their own until all have ended; one that dies is replaced. Says why
    they stopped.
    """
    command = [sys.executable, "-m", __package__.partition(".")[0], "sweep", *args.overrides]
    command += ["--name", sweep.name, "--worker", str(sweep.deadline)]
    workers, left = list[subprocess.Popen[bytes]](), DEATHS * args.workers
    try:
        while True:
            while (
                len(workers) < args.workers
            ):  # in sessions of their own, so that Ctrl-C reaches them once
                workers.append(
                    subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
                )
            dead = [worker for worker in workers if worker.poll()]
            workers = [worker for worker in workers if worker not in dead]
            left -= len(dead)
            for worker in dead:
                logs.get("sweep").warning(
                    "a worker ended with exit code %s: another takes its place", worker.poll()
                )
            if left < 0:
                raise ValueError("the workers die again and again: see above")
            if not dead and all(worker.poll() == 0 for worker in workers):
                return sweep.spent() or "all workers have ended"
            time.sleep(0.2)
    finally:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(PATIENCE)
            worker.kill()


def report(sweep: "Sweep", record: tracking.Run, reason: str) -> None:
    """Table, reports/sweep.json, plots and the experiment file. Raises ValueError where no trial
    gave a result.
    """
    trials, log = [row(t) for t in sweep.study.get_trials(deepcopy=False)], logs.get("sweep")
    if not sweep.ended("COMPLETE"):
        last = next((t["reason"] for t in reversed(trials) if t["reason"]), "none ended")
        raise ValueError(f"{reason}, and no trial gave a result; the last one: {last}")
    best, folder = sweep.study.best_trial, sweep.settings.paths.reports
    content = {
        "study": sweep.name,
        "metric": sweep.metric,
        "lower_is_better": sweep.lower,
        "stopped": reason,
    }
    content |= {"best": row(best), "trials": trials, "provenance": stamp(sweep.settings, "train")}
    write_json(folder / "sweep.json", content)
    draw(sweep, folder / "sweep")
    record.metrics({f"best.{sweep.metric}": sweep.study.best_value})
    record.tags({"sweep.best": best.number, "sweep.stopped": reason})
    record.artifacts([folder / "sweep.json", folder / "sweep"], "sweep")
    show(sweep, trials)
    log.info(
        "%s: %s %.4f in trial %d of %d", reason, sweep.metric, best.value, best.number, len(trials)
    )
    experiment(sweep)


def row(trial: Any) -> dict[str, Any]:
    """A trial for the report; the score of a pruned one is its last of an epoch."""
    attributes = trial.user_attrs
    return {
        "number": trial.number,
        "state": trial.state.name,
        "score": trial.value,
        "seconds": attributes.get("seconds"),
        "epochs": len(trial.intermediate_values),
        "reason": attributes.get("reason", ""),
        "params": trial.params,
    }


def draw(sweep: "Sweep", folder: Path) -> None:
    """Best so far, parallel coordinates and slices, one picture each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as charts

    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of an interface that may change, and of axes with a single value
        for name in PLOTS:
            getattr(charts, f"plot_{name}")(sweep.study, target_name=sweep.metric)
            plt.savefig(
                folder / f"{name}.png", dpi=130, bbox_inches="tight", metadata={"Software": None}
            )
            plt.close("all")


def show(sweep: "Sweep", trials: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "trial", sweep.metric, "seconds", *sweep.space, title=f"best trials of {sweep.name}"
    )
    done = [t for t in trials if t["state"] == "COMPLETE"]
    for t in sorted(done, key=lambda t: t["score"], reverse=not sweep.lower)[:SHOWN]:
        values = [
            f"{v:.4g}" if isinstance(v, float) else str(v)
            for v in (t["params"].get(k) for k in sweep.space)
        ]
        table.add_row(str(t["number"]), f"{t['score']:.4f}", str(t["seconds"]), *values)
    Console(stderr=True).print(table)


def experiment(sweep: "Sweep") -> None:
    """Writes the best configuration as an experiment file, unless that name is taken by somebody
    else's.
    """
    from .trials import with_params

    best, log, name = sweep.study.best_trial, logs.get("sweep"), f"search_{sweep.name}"
    path, asked = (
        Path("configs/experiment") / f"{name}.yaml",
        with_params(sweep.overrides, best.params),
    )
    head = f"# @package _global_\n# make pipeline EXPERIMENT={name}\n# Written and rewritten by the search.\n"
    score = f"# trial {best.number}, validation {sweep.metric} {best.value:.4f}, {best.datetime_complete:%Y-%m-%d}\n"
    command = f"# `{' '.join(['sweep', *sweep.overrides])}`\n"
    if not path.is_file() or path.read_text(encoding="utf-8").startswith(head):
        content = yaml.safe_dump(as_experiment(asked), sort_keys=False)
        path.write_text(head + score + command + content, encoding="utf-8")
        if composed(f"experiment={name}") == composed(*asked):
            log.info("to train it: make pipeline EXPERIMENT=%s", name)
            return
        path.unlink()  # such as one that removes a key
    log.warning(
        "no %s: it is not ours or cannot say this; make pipeline OVERRIDES='%s'",
        path,
        " ".join(asked),
    )


def composed(*overrides: str) -> dict[str, Any]:
    """The configuration without the search."""
    found: dict[str, Any] = yaml.safe_load(compose(list(overrides)))
    return {key: value for key, value in found.items() if key != "search"}


def as_experiment(overrides: list[str]) -> dict[str, Any]:
    """Choices of groups as a defaults list, and the values that differ from what those compose to."""
    groups = {
        key: yaml.safe_load(v)
        for key, _, v in (o.partition("=") for o in overrides)
        if Path("configs", key).is_dir()
    }
    plain = composed(*(f"{key}={name}" for key, name in groups.items()))
    own = [groups.pop("experiment")] if "experiment" in groups else []
    defaults = [
        *own,
        "_self_",
        *({f"override /{key}": name} for key, name in groups.items() if key != "search"),
    ]
    return {"defaults": defaults, **difference(composed(*overrides), plain)}


def difference(wanted: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """The part of a nested mapping that another one lacks or has otherwise."""
    found = {}
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(plain.get(key), dict):
            value = difference(value, plain[key])
            if not value:
                continue
        elif key in plain and plain[key] == value:
            continue
        found[key] = value
    return found

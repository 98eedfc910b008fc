"""Compares runs, or trains two configurations again to tell which is better; writes
reports/compare.json and .html.

    compare RUN_A RUN_B                       ids or their beginnings, or champion, challenger, best
    compare --a RUN RUN RUN --b RUN RUN RUN   two groups: two configurations with the same seeds
    compare --resamples 10 --a model.width=64 --b ""      both trained on 10 resamples of the rows
                                              outside of test
    compare --seeds 10 --a model.width=64 --b classical   both trained with 10 seeds on one of them

Settings for both sides stand first: `compare trainer.max_epochs=9 --resamples 10 --a ... --b ...`.
"""

import argparse
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs, pages, tracking
from ..packaging import registry
from ..params import load
from ..provenance import read_json, sha256, write_json
from ..settings import LOWER_IS_BETTER, SCORE, Settings

if TYPE_CHECKING:
    import pandas as pd

    from ..evaluation.comparison import Paired

COMPOSES = True  # what stands first are runs, or overrides of configs/
KEYS = ["id", "content", "label"]  # of a test row
RESULT = (
    "{difference:+z.4f} ({level:.0%} interval {low:+z.4f} to {high:+z.4f}), {chance}, "
    "effect size {effect:+z.2f}; {test}, n = {num}"
)
INPUTS = ("code.", "config ", "data.", "dvc.", "env.", "package ")
SPLITS = ("train.", "val.", "calibration.", "test.", "held_out.")


def arguments(parser: argparse.ArgumentParser) -> None:
    text = "runs; with --resamples or --seeds, overrides"
    parser.add_argument("--a", nargs="+", metavar="RUN", help=text)
    parser.add_argument("--b", nargs="+", metavar="RUN", help=text)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resamples", type=int, metavar="N", help="train both sides on N resamples")
    mode.add_argument("--seeds", type=int, metavar="N", help="train both sides with N seeds")
    parser.add_argument("--metric", help="such as log_loss; else the metric of data.goal")


def run(_: Settings | None, args: argparse.Namespace) -> int:
    """Exit 0 whatever the answer: this informs, `promote` decides."""
    with logs.stage("compare"):
        if args.resamples is not None or args.seeds is not None:
            args.a, args.b = import_module(".resamples", __package__).train_both(args)
            args.overrides = []
        compare(args)
    return 0


def compare(args: argparse.Namespace) -> None:
    """Two runs by what they answered on each test row, groups by a score per run."""
    import pandas as pd

    settings = load([word for word in args.overrides if "=" in word])
    sides = [[word] for word in args.overrides if "=" not in word] or [args.a, args.b]
    if len(sides) != 2 or not all(sides):
        raise ValueError(
            "name two runs, `compare RUN RUN`, or two groups, `--a RUN RUN --b RUN RUN`"
        )
    a, b = ([read(settings, name) for name in names] for names in sides)
    side = ["a"] * len(a) + ["b"] * len(b)
    inputs = pd.DataFrame([run.inputs for run in a + b]).fillna("none")
    metrics = pd.DataFrame([run.metrics for run in a + b]).dropna(axis=1)
    alpha = settings.evaluation.comparison.alpha
    metric = args.metric or settings.data.goal.metric
    test = None
    try:
        if len(side) == 2:
            metric, test = compare_rows(a[0], b[0], alpha)
        else:
            metric, test = compare_groups(inputs, metrics, side, metric, alpha)
        verdict = in_words(test, metric)
    except NoTestError as error:
        verdict = f"no test applies: {error}"
    means = metrics.groupby(side).mean().T.sort_index()
    means = means[means.index.str.startswith(SPLITS)].eval("difference = a - b")
    tables = {"Metrics": means, "Inputs that differ": differences(inputs, side)}
    content: dict[str, Any] = {"verdict": verdict, "test": test and asdict(test)}
    content |= {"a": [run.name for run in a], "b": [run.name for run in b]}
    publish(settings, content, tables)


class NoTestError(Exception):
    """Says why the runs cannot be tested against each other."""


@dataclass(frozen=True)
class Record:
    """A run as plain data; its losses by test row, in squared label scales, where it has some."""

    name: str
    inputs: dict[str, str]
    metrics: dict[str, float]
    losses: "pd.Series[float] | None"
    scale: float


def find_run(settings: Settings, name: str) -> Any:
    """The tracker's run for an id, the beginning of one, or an alias. Raises ValueError where that
    is not one run.
    """
    client = tracking.client(settings)
    if name in (registry.CHAMPION, registry.CHALLENGER, registry.BEST):
        version = registry.by_alias(settings, name)
        if version is None:
            raise ValueError(f"no model is {name} yet: run `make pipeline`")
        return client.get_run(str(version.run_id))
    experiment = tracking.experiment_id(client, settings.tracking.experiment)
    runs = client.search_runs([experiment], f"attributes.run_id LIKE '{name}%'", max_results=2)
    runs = runs or client.search_runs([experiment], f"tags.record = '{name}'")
    if len(runs) != 1:
        problem = "more than one run begins" if runs else "no run begins"
        raise ValueError(f"{problem} with {name!r}: `ui` shows the runs and their ids")
    return runs[0]


def read(settings: Settings, name: str) -> Record:
    """A run with what it inherits: a baseline has inputs and losses from its training's run."""
    import pandas as pd

    client = tracking.client(settings)
    run = find_run(settings, name)
    parent = run.data.tags.get("mlflow.parentRunId")
    inputs = dict[str, str]()
    files = dict[str, Path]()
    for one in [client.get_run(parent), run] if parent else [run]:
        inputs |= one.data.tags | {f"config {k}": v for k, v in one.data.params.items()}
        for part in ("code", "environment", "evaluation"):
            if client.list_artifacts(one.info.run_id, part):
                folder = Path(client.download_artifacts(one.info.run_id, part))
                files |= {path.name: path for path in folder.iterdir()}
    if "packages.txt" in files:
        inputs["code.uncommitted"] = sha256(files["uncommitted.diff"])[:12]
        lines = files["packages.txt"].read_text(encoding="utf-8").splitlines()
        inputs |= dict(f"package {line}".split("==", 1) for line in lines)
    losses = None
    evaluation = {}
    baseline = run.data.tags.get("candidate") if parent else None
    if "losses.parquet" in files:
        evaluation = read_json(files["evaluation.json"])
        table = pd.read_parquet(files["losses.parquet"]).set_index(KEYS)
        losses = table.get(baseline or evaluation["candidate"])
    model = baseline or evaluation.get("candidate", "network")
    name = f"{run.info.run_name} {run.info.run_id[:8]} ({model})"
    return Record(name, inputs, run.data.metrics, losses, evaluation.get("label_scale", 1.0))


def differences(inputs: "pd.DataFrame", side: list[str]) -> "pd.DataFrame":
    """Code, configuration, data and environment that differ; all values of a group's runs."""
    table = inputs.groupby(side).agg(lambda values: " | ".join(sorted(set(values)))).T.sort_index()
    names = table.index.str
    relevant = names.startswith(INPUTS) & ~names.startswith("config paths.")
    return table[relevant & (table["a"] != table["b"])]


def compare_rows(a: Record, b: Record, alpha: float) -> "tuple[str, Paired]":
    """The models that two runs stand for, on the test rows that both judged."""
    import pandas as pd

    from ..evaluation.comparison import paired

    columns: list[Any] = []
    for record in (a, b):
        if record.losses is None:
            raise NoTestError(
                f"{record.name} has no losses on test rows: only runs of `make pipeline` are "
                "evaluated"
            )
        columns.append(record.losses * record.scale**2)
    rows = pd.concat(columns, axis=1, join="inner") / a.scale**2
    if len(rows) < 2:
        raise NoTestError("no test row was judged by both runs")
    kind: Any = a.inputs["config data.kind"]
    one, other = rows.to_numpy().T
    return SCORE[kind], paired(one, other, kind, alpha)


def compare_groups(
    inputs: "pd.DataFrame", metrics: "pd.DataFrame", side: list[str], metric: str, alpha: float
) -> "tuple[str, Paired]":
    """A score per run, paired by seed."""
    from ..evaluation import comparison

    names = [n for n in (f"test.{metric}", f"held_out.{metric}", f"val.{metric}") if n in metrics]
    if not names:
        raise NoTestError(f"not all runs have {metric} on one split")
    keys = ["config seed", "data.splits"]
    scores = inputs[keys].assign(score=metrics[names[0]], side=side)
    table = scores.pivot_table("score", keys, "side").dropna()
    if len(table) < 2 or 2 * len(table) < len(side):
        raise NoTestError("both sides need the same seeds, twice, on the same rows")
    losses = loss_sign(names[0]) * (table["a"] - table["b"]).to_numpy()
    if inputs["data.splits"].nunique() == 1:
        return names[0], comparison.seeds(losses, alpha)
    # A seed of the pipeline draws the splits too: they are resamples, whose rows overlap.
    counts = inputs.filter(regex="^data.rows.(train|val|test)$").astype(int).mean()
    num_test = counts["data.rows.test"]
    return names[0], comparison.resampled(losses, counts.sum() - num_test, num_test, alpha)


def loss_sign(metric: str) -> int:
    """What turns a score into a loss, and back."""
    return 1 if metric.rpartition(".")[2] in LOWER_IS_BETTER else -1


def in_words(test: "Paired", metric: str) -> str:
    """The answer about a; the test's losses turned into what the metric gains or loses."""
    answer = test.answer(test.alpha)
    sign = loss_sign(metric)
    words = "a and b cannot be told apart" if answer == "cannot tell" else f"a is {answer} than b"
    low, high = sorted((sign * test.low, sign * test.high))
    turned = {"difference": sign * test.difference, "effect": sign * test.effect}
    values = asdict(test) | turned | {"low": low, "high": high, "level": 1 - test.alpha}
    values["chance"] = pages.chance(test.p)
    return f"{words}: {metric} {RESULT.format(**values)}"


def publish(settings: Settings, content: dict[str, Any], tables: "dict[str, pd.DataFrame]") -> None:
    """To the terminal, to reports/compare.json and to reports/compare.html."""
    lines = [f"a: {', '.join(content['a'])}", f"b: {', '.join(content['b'])}", content["verdict"]]
    sections = []
    for title, frame in tables.items():
        table = pages.table(frame.reset_index().to_dict("records"), "" if len(frame) else "None.")
        pages.print_table(title, table.columns, table.rows)
        sections.append(pages.Section(title, [table]))
    print("\n".join(lines))
    rows = {title: frame.to_dict("index") for title, frame in tables.items()}
    write_json(settings.paths.reports / "compare.json", {**content, "tables": rows})
    path = settings.paths.reports / "compare.html"
    project = settings.project
    title = f"Comparison in {project.name}"
    lead = [pages.Text(line) for line in lines]
    pages.write(path, title, lead, sections, f"Owner {project.owner}")

"""Compares runs, or trains two configurations again to tell which is better; writes
reports/compare.json and .html.

    compare RUN_A RUN_B                       ids or their beginnings, or champion, challenger, best
    compare --a RUN RUN RUN --b RUN RUN RUN   two groups, such as one configuration with several seeds each
    compare --resamples 10 --a model.width=64 --b ""          both trained on 10 resamples of the rows outside of test
    compare --seeds 10 --a model.width=64 --b classical       both trained with 10 seeds on one of them

Settings for both sides stand first: `compare trainer.max_epochs=9 --resamples 10 --a ... --b ...`.
"""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import logs, tracking
from ..params import load
from ..provenance import write_json
from ..settings import METRICS, Settings

if TYPE_CHECKING:
    from ..evaluation.comparison import Paired

COMPOSES = True  # what stands first are runs, or overrides of configs/


def arguments(parser: argparse.ArgumentParser) -> None:
    for side in ("a", "b"):
        parser.add_argument(
            f"--{side}",
            nargs="+",
            metavar="RUN",
            help="runs; with --resamples or --seeds, overrides",
        )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resamples", type=int, metavar="N", help="train both sides on N resamples")
    mode.add_argument("--seeds", type=int, metavar="N", help="train both sides with N seeds")
    parser.add_argument(
        "--metric", help="what to judge by, such as log_loss; else the metric of data.goal"
    )


def run(_: Settings | None, args: argparse.Namespace) -> int:
    """Exit 0 whatever the answer: this informs, `promote` decides."""
    with logs.stage("compare"):
        if args.resamples is None and args.seeds is None:
            from .runs import compare_runs

            settings = load([o for o in args.overrides if "=" in o])
            publish(settings, compare_runs(settings, *_sides(args), args.metric))
        else:
            compare_trainings(args)
    return 0


def _sides(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    named = [o for o in args.overrides if "=" not in o]
    if len(named) == 2 and not (args.a or args.b):
        return named[:1], named[1:]
    if named or not (args.a and args.b):
        raise ValueError(
            "name two runs, `compare RUN_A RUN_B`, or two groups, `compare --a RUN RUN --b RUN RUN`"
        )
    return args.a, args.b


def compare_trainings(args: argparse.Namespace) -> None:
    """Trains, tests and records, in one run with a child for every training."""
    from . import resamples
    from .runs import in_words

    mode: resamples.Mode = "resamples" if args.resamples is not None else "seeds"
    num = args.resamples if mode == "resamples" else args.seeds
    if args.a is None or args.b is None or num < 2:
        raise ValueError(
            f'say what to train, and at least twice: compare --{mode} 10 --a "model.width=64" --b ""'
        )
    contenders = {
        side: resamples.contender(args.overrides, getattr(args, side)) for side in ("a", "b")
    }
    resamples.check_alike(list(contenders.values()))
    settings = contenders["a"].settings
    metric, alpha = args.metric or settings.data.goal.metric, settings.evaluation.comparison.alpha
    if metric not in METRICS[settings.data.kind]:
        raise ValueError(
            f"there is no metric {metric!r}: choose one of {', '.join(METRICS[settings.data.kind])}"
        )
    settings.paths.state.mkdir(parents=True, exist_ok=True)
    tags = {
        "compare.mode": mode,
        "compare.metric": metric,
        **{f"compare.{s}": c.text for s, c in contenders.items()},
    }
    with (
        tempfile.TemporaryDirectory(prefix="compare-", dir=settings.paths.state) as folder,
        tracking.start(settings, "compare", tags=tags) as parent,
    ):
        tracking.record_inputs(parent, settings)
        scores, sizes = resamples.train_all(contenders, mode, num, parent, Path(folder), metric)
        found = resamples.test(scores, mode, sizes, metric, alpha)
        verdict = in_words(found, f"held_out.{metric}")
        publish(settings, _trained(contenders, scores, sizes, mode, found, verdict))
        parent.metrics(
            {k: getattr(found, k) for k in ("difference", "low", "high", "p", "effect")}, "compare."
        )
        parent.tags({"compare.verdict": verdict})
        parent.artifacts(
            [settings.paths.reports / f"compare.{kind}" for kind in ("json", "html")], "compare"
        )


def _trained(
    contenders: dict[str, Any],
    scores: Any,
    sizes: tuple[int, int],
    mode: str,
    found: "Paired",
    verdict: str,
) -> dict[str, Any]:
    from .runs import differences

    params = [
        {k: str(v) for k, v in tracking.flatten(c.settings.model_dump(mode="json")).items()}
        for c in contenders.values()
    ]
    rows = [
        [str(i + 1), f"{a:.4f}", f"{b:.4f}", f"{a - b:+z.4f}"]
        for i, (a, b) in enumerate(zip(*scores.values(), strict=True))
    ]
    note = f"each time {sizes[0]} rows to learn from and {sizes[1]} held out; the test split was not used"
    if mode == "seeds":
        note += "; the rows were the same with every seed, so this answers for them alone"
    return {
        "verdict": verdict,
        **{
            side: [{"id": "", "name": c.text, "model": "classical" if c.classical else "network"}]
            for side, c in contenders.items()
        },
        "tests": [{"scores": scores, **asdict(found)}],
        "tables": [
            {
                "title": "Scores on held-out rows",
                "columns": [mode[:-1], "a", "b", "a - b"],
                "rows": rows,
                "note": note,
            },
            differences("Configuration", *params),
        ],
    }


def publish(settings: Settings, content: dict[str, Any]) -> None:
    """To the terminal, to reports/compare.json and to reports/compare.html, one file that needs no
    other.
    """
    import jinja2
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Shown

    console = Console()
    for side in ("a", "b"):
        names = (
            " ".join(filter(None, (r["name"], r["id"][:8], f"({r['model']})")))
            for r in content[side]
        )
        console.print(f"{side}: {escape(', '.join(names))}")
    for table in content["tables"]:
        console.print(f"\n[bold]{table['title']}[/] {escape(table['note'])}")
        shown = Shown()
        for column in table["columns"]:
            shown.add_column(column, overflow="fold")
        for row in table["rows"]:
            shown.add_row(*map(escape, row))
        if table["rows"]:
            console.print(shown)
    console.print(f"\n[bold]{escape(content['verdict'])}[/]")
    template = Path(__file__).with_name("compare.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        template
    )
    write_json(settings.paths.reports / "compare.json", content)
    text = page.render(content=content, project=settings.project)
    (settings.paths.reports / "compare.html").write_text(text + "\n", encoding="utf-8")

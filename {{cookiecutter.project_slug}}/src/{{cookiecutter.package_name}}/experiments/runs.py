"""What differs between two sides of one run or more each, and whether their scores differ by more
than chance.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from ..evaluation.comparison import Paired, paired, resampled, seeds
from ..settings import LOWER_IS_BETTER, SCORE, Settings
from .records import Record, read

ABSENT = "none"
Table = dict[str, Any]  # title, columns, rows of text, and a note
Sides = dict[str, list[Record]]  # a and b
Found = tuple[
    str, list[dict[str, Any]], list[Table]
]  # the answer in words, tests as plain data, tables


def compare_runs(
    settings: Settings, a: list[str], b: list[str], metric: str | None
) -> dict[str, Any]:
    """The report as plain data: what differs between the two sides, and whether their scores do."""
    sides = {"a": [read(settings, name) for name in a], "b": [read(settings, name) for name in b]}
    alpha, single = settings.evaluation.comparison.alpha, len(a) == len(b) == 1
    if single:
        verdict, tests, table = _row_tests(sides["a"][0], sides["b"][0], alpha)
    else:
        verdict, tests, table = _group_test(sides, metric or settings.data.goal.metric, alpha)
    return {
        "verdict": verdict,
        "a": [{"id": r.id, "name": r.name, "model": r.model} for r in sides["a"]],
        "b": [{"id": r.id, "name": r.name, "model": r.model} for r in sides["b"]],
        "tests": tests,
        "tables": [*table, _metrics(sides), *_inputs(sides)],
    }


def _inputs(sides: Sides) -> list[Table]:
    """What differs in configuration, data, code and environment."""

    def chosen(what: Callable[[Record], dict[str, str]], *prefixes: str) -> list[dict[str, str]]:
        return [
            _merged([{k: v for k, v in what(r).items() if k.startswith(prefixes)} for r in s])
            for s in sides.values()
        ]

    def environment(record: Record) -> dict[str, str]:
        return {
            **record.tags,
            **{f"package {name}": version for name, version in record.packages.items()},
        }

    return [
        differences(
            "Configuration",
            *chosen(lambda r: {k: v for k, v in r.params.items() if k[:6] != "paths."}, ""),
        ),
        differences("Data", *chosen(lambda r: r.tags, "data.", "dvc.")),
        differences("Code", *chosen(lambda r: r.tags, "code.")),
        differences(
            "Environment",
            *chosen(environment, "env.python", "env.hardware", "env.lock", "package "),
        ),
    ]


def _merged(values: list[dict[str, str]]) -> dict[str, str]:
    """One text per key: all different values of a group's runs."""
    return {
        k: " | ".join(sorted({v.get(k, ABSENT) for v in values}))
        for k in {k for v in values for k in v}
    }


def differences(title: str, a: dict[str, str], b: dict[str, str]) -> Table:
    rows = [[k, a.get(k, ABSENT), b.get(k, ABSENT)] for k in sorted(a | b) if a.get(k) != b.get(k)]
    return {
        "title": title,
        "columns": ["", "a", "b"],
        "rows": rows,
        "note": "" if rows else "no difference",
    }


def _metrics(sides: Sides) -> Table:
    """Metrics that both sides have, in the mean over a group's runs."""
    means: list[dict[str, float]] = []
    for records in sides.values():
        common = set.intersection(*(set(r.metrics) for r in records))
        means.append({k: sum(r.metrics[k] for r in records) / len(records) for k in common})
    splits = ("train", "val", "calibration", "test", "held_out")
    names = [
        k
        for split in splits
        for k in sorted(means[0].keys() & means[1])
        if k.startswith(f"{split}.")
    ]
    rows = [
        [k, f"{means[0][k]:.4f}", f"{means[1][k]:.4f}", f"{means[0][k] - means[1][k]:+z.4f}"]
        for k in names
    ]
    return {
        "title": "Metrics",
        "columns": ["", "a", "b", "a - b"],
        "rows": rows,
        "note": "" if rows else "none in common",
    }


def _row_tests(a: Record, b: Record, alpha: float) -> Found:
    """The models that the runs stand for, and candidates of one name, on the test rows that both
    runs judged.
    """
    why = _not_testable(a, b)
    if why or a.losses is None or b.losses is None:
        return f"no test applies: {why}", [], []
    keys = [c for c in ("id", "content", "label") if c in a.losses and c in b.losses]
    both = a.losses.merge(b.losses, on=keys, suffixes=("/a", "/b"))
    kind: Any = a.params["data.kind"]
    alike = [] if a.losses.equals(b.losses) else [(n, n) for n in ("network", "classical")]
    pairs = dict.fromkeys([(a.model, b.model), *alike])
    tests, rows = [], []
    for one, other in pairs:
        if one not in a.losses or other not in b.losses:
            continue
        mine = both[f"{one}/a" if one in b.losses else one].to_numpy()
        its = (
            both[f"{other}/b" if other in a.losses else other].to_numpy() * (b.scale / a.scale) ** 2
        )
        found = paired(mine, its, kind, alpha)
        tests.append({"a": one, "b": other, "score": SCORE[kind], **asdict(found)})
        rows.append(
            [
                f"{one} / {other}",
                f"{1 - mine.mean():.4f}",
                f"{1 - its.mean():.4f}",
                in_words(found, SCORE[kind]),
            ]
        )
    note = f"on {len(both)} test rows that both runs judged, of {len(a.losses)} and {len(b.losses)}"
    if kind == "regression":
        note += "; r2 is 1 minus the mean squared error in shares of the training labels' variance"
    table = {"title": "Test", "columns": ["models", "a", "b", "answer"], "rows": rows, "note": note}
    return rows[0][-1], tests, [table]


def _not_testable(a: Record, b: Record) -> str:
    """Why no test applies to two runs; empty where one does."""
    for record in (a, b):
        if record.losses is None or record.model not in record.losses:
            return f"run {record.id[:8]} has no losses on test rows: only runs of `make pipeline` are evaluated"
    assert a.losses is not None and b.losses is not None
    if a.params["data.kind"] != b.params["data.kind"]:
        return "the runs solve different kinds of problems"
    # Without a hash of its content, a row is known by its id alone, which other data may give to
    # another row.
    if (
        not ({"content"} <= {*a.losses} & {*b.losses})
        and a.tags["data.version"] != b.tags["data.version"]
    ):
        return "the runs judged different data"
    keys = [c for c in ("id", "content", "label") if c in a.losses and c in b.losses]
    return (
        ""
        if len(a.losses[keys].merge(b.losses[keys])) > 1
        else "no test row was judged by both runs"
    )


def _group_test(sides: Sides, metric: str, alpha: float) -> Found:
    """One score per run: paired where the sides hold the same seeds, else Welch's test of two
    means.
    """
    names = [f"{split}.{metric}" for split in ("test", "held_out", "val")]
    records = [r for s in sides.values() for r in s]
    name = next((n for n in names if all(n in r.metrics for r in records)), None)
    if name is None:
        return f"no test applies: not all runs have {metric} on one split", [], []
    scores = {side: [r.metrics[name] for r in s] for side, s in sides.items()}
    rows = [
        [r.id[:8], r.params.get("seed", ABSENT), f"{r.metrics[name]:.4f}", side]
        for side, s in sides.items()
        for r in s
    ]
    table = {"title": "Scores", "columns": ["run", "seed", name, "side"], "rows": rows, "note": ""}
    found = _test_groups(sides, scores, 1 if metric in LOWER_IS_BETTER else -1, alpha)
    if isinstance(found, str):
        return f"no test applies: {found}", [], [table]
    return in_words(found, name), [{"metric": name, **asdict(found)}], [table]


def _test_groups(
    sides: Sides, scores: dict[str, list[float]], sign: int, alpha: float
) -> Paired | str:
    """The test that fits, or why none does; scores times `sign` are losses."""
    if min(len(s) for s in sides.values()) < 2:
        return "a group needs two runs or more"
    if len({r.params.get("data.kind") for s in sides.values() for r in s}) > 1:
        return "the runs solve different kinds of problems"
    rows = {
        side: {r.params.get("seed"): r.tags.get("data.splits") for r in s}
        for side, s in sides.items()
    }
    matched = rows["a"] == rows["b"] and all(len(rows[side]) == len(s) for side, s in sides.items())
    same_rows = len({*rows["a"].values(), *rows["b"].values()}) == 1
    if not matched:
        return (
            welch(scores["a"], scores["b"], sign, alpha)
            if same_rows
            else "the runs were scored on different rows"
        )
    by_seed = [
        dict(zip([r.params.get("seed") for r in sides[s]], scores[s], strict=True))
        for s in ("a", "b")
    ]
    differences = sign * np.array([by_seed[0][seed] - by_seed[1][seed] for seed in rows["a"]])
    if same_rows:
        return seeds(differences, alpha)
    # A seed of the pipeline draws the splits too: then the seeds are resamples, whose rows overlap.
    counts = [
        {n: float(r.tags[f"data.rows.{n}"]) for n in ("train", "val", "test")} for r in sides["a"]
    ]
    learned, held = (sum(c["train"] + c["val"] for c in counts), sum(c["test"] for c in counts))
    return resampled(differences, round(learned), round(held), alpha)


def welch(a: list[float], b: list[float], sign: int, alpha: float) -> Paired | str:
    """Two means whose variances may differ (Welch 1947, doi:10.1093/biomet/34.1-2.28); effect:
    Cohen's d.

    Scores times `sign` are losses.
    """
    mine, its = sign * np.array(a), sign * np.array(b)
    spread = float(np.sqrt((mine.var(ddof=1) + its.var(ddof=1)) / 2))
    if spread == 0:
        return "the runs of a group do not differ at all: train them with other seeds"
    found = stats.ttest_ind(mine, its, equal_var=False)
    low, high = found.confidence_interval(1 - alpha)
    difference = float(mine.mean() - its.mean())
    numbers = (difference, float(low), float(high), float(found.pvalue), difference / spread)
    return Paired("Welch's t, as seeds do not match", len(a) + len(b), *numbers, alpha)


def in_words(found: Paired, metric: str) -> str:
    """The answer about a; the test's losses turned into what the metric gains or loses."""
    relation = {
        "better": "a is better than b",
        "worse": "a is worse than b",
        "cannot tell": "a and b cannot be told apart",
    }
    sign = 1 if metric.rpartition(".")[2] in LOWER_IS_BETTER else -1
    low, high = sorted((sign * found.low, sign * found.high))
    return (
        f"{relation[found.answer(found.alpha)]}: {metric} {sign * found.difference:+z.4f} "
        f"({1 - found.alpha:.0%} interval {low:+z.4f} to {high:+z.4f}), p = {found.p:.3g}, "
        f"effect size {sign * found.effect:+z.2f}; {found.test}, n = {found.num}"
    )

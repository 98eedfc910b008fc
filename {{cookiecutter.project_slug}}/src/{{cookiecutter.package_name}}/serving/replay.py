"""Sends rows of a split to a running server and compares each answer with the bundle's own: a
release's smoke test.

python -m <package> replay --split test --rows 300 --feedback
python -m <package> replay --rows 300 --corrupt NAME:SEVERITY
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from ..provenance import stamp, write_json
from ..settings import Settings
from ..task.features import Features, Instance, check_instance, inputs_to_instances, row_to_instance
from .predictor import Champion, load_live

BATCH = 50
TOLERANCE = 1e-4  # of a probability, or of the labels' standard deviation
Items = list[dict[str, Any]]
Labels = list[Any]  # names of classes, or numbers


def arguments(parser: argparse.ArgumentParser) -> None:
    split = "train, val, calibration or test (default: test)"
    parser.add_argument("--split", default="test", help=split)
    rows = "how many rows, drawn by the settings' seed (default: 300)"
    parser.add_argument("--rows", type=int, default=300, help=rows)
    corrupt = "corrupt the inputs first; severity 1 to 5"
    parser.add_argument("--corrupt", metavar="NAME:SEVERITY", help=corrupt)
    parser.add_argument("--feedback", action="store_true", help="send the true labels too")
    url = "http://127.0.0.1:8000"
    parser.add_argument("--url", default=url, help=f"the server (default: {url})")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """0 if the server gave the bundle's own answer to every row and example, else 1. Writes
    reports/replay.json.

    A value counts as right where the answered interval holds the truth.
    """
    champion, started = load_live(settings.paths.live), time.perf_counter()
    bundle = champion.bundle
    items, labels = rows(settings, args.split, args.rows)
    drawn = len(items)
    if args.corrupt:
        items, labels = corrupt(settings, champion, items, labels, args.corrupt)
    answers, different = [], ask(args.url, champion, bundle.examples["instances"])[1]
    size = min(BATCH, settings.serving.max_instances)
    for start in range(0, len(items), size):
        answered, wrong = ask(args.url, champion, items[start : start + size])
        answers += answered
        different += wrong
    right = 0
    for answer, label in zip(answers, labels, strict=True):
        right += bundle.kind.is_right(answer, label)
        if args.feedback:
            post(args.url, "/feedback", {"prediction_id": answer["prediction_id"], "label": label})
    report = {
        "url": args.url,
        "split": args.split,
        "rows": len(items),
        "corruption": args.corrupt,
        "left_out": drawn - len(items),
        "different": different,
        "right": right / len(items),
        "abstained": sum(answer["abstain"] for answer in answers) / len(items),
        "feedback": args.feedback,
        "seconds": round(time.perf_counter() - started, 3),
        "provenance": stamp(settings, "serve", bundle.identity),
    }
    write_json(settings.paths.reports / "replay.json", report)
    say(report)
    return 1 if different else 0


def say(report: dict[str, Any]) -> None:
    """One line on the terminal."""
    what = f"{report['rows']} rows of {report['split']}"
    if report["corruption"]:
        what += f" under {report['corruption']}"
    if report["left_out"]:
        what += f" ({report['left_out']} more left out, since the corruption made them invalid)"
    verdict = "every answer is the bundle's own"
    if report["different"]:
        verdict = f"{report['different']} answers differ from the bundle's own"
    print(f"replay: {what}: {report['right']:.3f} right, {verdict}", file=sys.stderr)


def rows(settings: Settings, split: str, count: int) -> tuple[Items, Labels]:
    """Request items and true labels of up to `count` rows, without repetition."""
    import pandas as pd

    path = settings.paths.splits / f"{split}.parquet"
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: run `make pipeline` first, or choose another --split"
        )
    if count < 1:
        raise ValueError("--rows must be at least 1")
    table = pd.read_parquet(path)
    chosen = table.sample(min(count, len(table)), random_state=settings.seed).to_dict("records")
    features = Features.model_validate(settings.data.features)
    items = [row_to_instance(row, features) for row in chosen]
    return items, [row["label"] for row in chosen]


def corrupt(
    settings: Settings, champion: Champion, items: Items, labels: Labels, text: str
) -> tuple[Items, Labels]:
    """Items under a corruption of the perturbation test, NAME:SEVERITY, and their labels; invalid
    ones are left out.
    """
    from ..task.behaviour import declare

    known = declare(settings.data).perturbations
    name, _, severity = text.partition(":")
    if name not in known or severity not in tuple("12345"):
        raise ValueError(
            f"--corrupt {text!r}: write NAME:SEVERITY, a severity of 1 to 5 and a name of "
            + ", ".join(known)
        )
    inputs = champion.decode([Instance.model_validate(item) for item in items])
    changed = known[name](inputs, int(severity), np.random.default_rng(settings.seed))
    valid: tuple[Items, Labels] = [], []
    for item, label in zip(inputs_to_instances(changed, champion.features), labels, strict=True):
        try:
            check_instance(Instance.model_validate(item), champion.features)
        except ValueError:
            continue
        valid[0].append(item)
        valid[1].append(label)
    if not valid[0]:
        raise ValueError(f"--corrupt {text!r} makes every row invalid: choose a lower severity")
    return valid


def ask(url: str, champion: Champion, items: Items) -> tuple[Items, int]:
    """The server's predictions on items, and how many of them are not what the bundle says."""
    answered = post(url, "/predict", {"instances": items})
    if answered["model"]["identity"] != champion.bundle.identity:
        raise ValueError(
            f"{url} serves version {answered['model']['version']}, live/ names "
            f"{champion.version}: wait a second, or restart it"
        )
    inputs = champion.decode([Instance.model_validate(item) for item in items])
    expected = champion.encode(champion.predict(inputs).answers)
    predictions, tolerance = answered["predictions"], TOLERANCE * champion.bundle.card.label_scale
    pairs = zip(predictions, expected, strict=True)
    return predictions, sum(not _same(one, other, tolerance) for one, other in pairs)


def _same(given: Any, expected: Any, tolerance: float) -> bool:
    """Whether two answers agree: numbers up to the tolerance, all else exactly."""
    if isinstance(expected, float):
        return bool(abs(given - expected) <= tolerance)
    if isinstance(expected, dict):
        return all(_same(given[name], value, tolerance) for name, value in expected.items())
    if isinstance(expected, list) and len(given) == len(expected):
        return all(_same(a, b, tolerance) for a, b in zip(given, expected, strict=True))
    return bool(given == expected)


def post(url: str, path: str, content: dict[str, Any]) -> Any:
    """The JSON answer of a POST. Raises ValueError with the server's own words."""
    key = os.environ.get("API_KEYS", "").split(",")[0].strip()
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    try:
        body = json.dumps(content).encode()
        request = urllib.request.Request(url.rstrip("/") + path, body, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            reason = error.read(2000).decode(errors="replace")
        raise ValueError(f"{url}{path} answered {error.code}: {reason}") from None
    except OSError as error:
        raise ValueError(
            f"no answer from {url} ({error}): run `make serve` first, or name it with --url"
        ) from None

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
from ..task.features import Instance, check_instance, inputs_to_instances, row_to_instance
from .predictor import Champion, load_live

BATCH = 50
TOLERANCE = 1e-4  # of a probability, or of the labels' standard deviation
Items = list[dict[str, Any]]
Labels = list[Any]  # names of classes, or numbers


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split", default="test", help="train, val, calibration or test (default: test)"
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=300,
        help="how many rows, drawn by the settings' seed (default: 300)",
    )
    parser.add_argument(
        "--corrupt", metavar="NAME:SEVERITY", help="corrupt the inputs first; severity 1 to 5"
    )
    parser.add_argument("--feedback", action="store_true", help="send the true labels too")
    parser.add_argument(
        "--url", default="http://127.0.0.1:8000", help="the server (default: http://127.0.0.1:8000)"
    )


def run(settings: Settings, args: argparse.Namespace) -> int:
    """0 if the server gave the bundle's own answer to every row and example, else 1. Writes
    reports/replay.json.

    A value counts as right where the answered interval holds the truth.
    """
    champion, started = load_live(settings.paths.live), time.perf_counter()
    items, labels = rows(settings, args.split, args.rows)
    drawn = len(items)
    if args.corrupt:
        items, labels = corrupt(settings, champion, items, labels, args.corrupt)
    smoke = [ask(args.url, champion, champion.bundle.examples["instances"])]
    starts = range(0, len(items), min(BATCH, settings.serving.max_instances))
    size = starts.step
    batches = [ask(args.url, champion, items[start : start + size]) for start in starts]
    answers = [answer for given, _ in batches for answer in given]
    different = sum(count for _, count in smoke + batches)
    if args.feedback:
        for answer, label in zip(answers, labels, strict=True):
            post(args.url, "/feedback", {"prediction_id": answer["prediction_id"], "label": label})
    right = sum(_right(answer, label) for answer, label in zip(answers, labels, strict=True))
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
        "provenance": stamp(settings, "serve", champion.bundle.identity),
    }
    write_json(settings.paths.reports / "replay.json", report)
    what = f"{len(items)} rows of {args.split}" + (f" under {args.corrupt}" if args.corrupt else "")
    verdict = (
        "every answer is the bundle's own"
        if not different
        else f"{different} answers differ from the bundle's own"
    )
    if report["left_out"]:
        what += f" ({report['left_out']} more left out, since the corruption made them invalid)"
    print(f"replay: {what}: {report['right']:.3f} right, {verdict}", file=sys.stderr)
    return 0 if not different else 1


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
    return [row_to_instance(row) for row in chosen], [row["label"] for row in chosen]


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
        names = ", ".join(known)
        raise ValueError(
            f"--corrupt {text!r}: write NAME:SEVERITY, a severity of 1 to 5 and a name of {names}"
        )
    inputs = champion.decode([Instance.model_validate(item) for item in items])
    changed = known[name](inputs, int(severity), np.random.default_rng(settings.seed))
    pairs = zip(inputs_to_instances(changed, champion.features), labels, strict=True)
    kept = [(item, label) for item, label in pairs if _valid(item, champion)]
    if not kept:
        raise ValueError(f"--corrupt {text!r} makes every row invalid: choose a lower severity")
    return [item for item, _ in kept], [label for _, label in kept]


def _valid(item: dict[str, Any], champion: Champion) -> bool:
    try:
        check_instance(Instance.model_validate(item), champion.features)
    except ValueError:
        return False
    return True


def _right(answer: dict[str, Any], label: Any) -> bool:
    if "interval" in answer:
        low, high = answer["interval"]
        return bool(low <= label <= high)
    return bool(answer["label"] == label)


def ask(url: str, champion: Champion, items: Items) -> tuple[Items, int]:
    """The server's predictions on items, and how many of them are not what the bundle itself says."""
    answered = post(url, "/predict", {"instances": items})
    if answered["model"]["identity"] != champion.bundle.identity:
        theirs = answered["model"]["version"]
        raise ValueError(
            f"{url} serves version {theirs}, live/ names {champion.version}: wait a second, or restart it"
        )
    inputs = champion.decode([Instance.model_validate(item) for item in items])
    own = champion.encode(champion.predict(inputs).answers)
    given, tolerance = answered["predictions"], TOLERANCE * champion.bundle.card.label_scale
    same = sum(_same(one, other, tolerance) for one, other in zip(given, own, strict=True))
    return given, len(items) - same


def _same(given: Any, own: Any, tolerance: float) -> bool:
    """Whether two answers agree: numbers up to the tolerance, all else exactly."""
    if isinstance(own, float):
        return bool(abs(given - own) <= tolerance)
    if isinstance(own, dict):
        return all(_same(given[key], value, tolerance) for key, value in own.items())
    if isinstance(own, list):
        return len(given) == len(own) and all(
            _same(a, b, tolerance) for a, b in zip(given, own, strict=True)
        )
    return bool(given == own)


def post(url: str, path: str, content: dict[str, Any]) -> Any:
    """The JSON answer of a POST. Raises ValueError with the server's own words."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("API_KEYS", "").split(",")[0].strip():
        headers["X-API-Key"] = key
    try:
        request = urllib.request.Request(
            url.rstrip("/") + path, json.dumps(content).encode(), headers
        )
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

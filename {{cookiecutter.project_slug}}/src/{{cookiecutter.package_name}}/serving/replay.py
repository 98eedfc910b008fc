"""Sends rows of a split to a running server and compares each answer with the bundle's own: a
release's smoke test.

python -m <package> replay --split test --rows 300 --feedback serving.port=9000
python -m <package> replay --rows 300 --corrupt NAME:SEVERITY
"""

import argparse
import json
import os
import sys
import time
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np

from ..provenance import stamp, write_json
from ..settings import Settings
from ..task.features import Features, Instance, check_instance, inputs_to_instances, row_to_instance
from .predictor import Champion, load_live
from .serve import address

BATCH = 50
TOLERANCE = 1e-4  # of a probability, or of the labels' standard deviation
Items = list[dict[str, Any]]
Pairs = list[tuple[dict[str, Any], Any]]  # an item and its label: the name of a class, or a number


def arguments(parser: argparse.ArgumentParser) -> None:
    split = "train, val, calibration or test (default: test)"
    parser.add_argument("--split", default="test", help=split)
    rows = "how many rows, drawn by the settings' seed (default: 300)"
    parser.add_argument("--rows", type=int, default=300, help=rows)
    corrupt = "corrupt the inputs first; severity 1 to 5"
    parser.add_argument("--corrupt", metavar="NAME:SEVERITY", help=corrupt)
    parser.add_argument("--feedback", action="store_true", help="send the true labels too")
    parser.add_argument("--url", help="the server (default: the one of serving.host and .port)")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """0 if the server gave the bundle's own answer to every row and example, else 1. Writes
    reports/replay.json.

    A value counts as right where the answered interval holds the truth.
    """
    champion, started = load_live(settings.paths.live), time.perf_counter()
    args.url = args.url or address(settings.serving.host, settings.serving.port)
    drawn = pairs = rows(settings, args.split, args.rows)
    if args.corrupt:
        pairs = corrupt(settings, champion, drawn, args.corrupt)
    answers, different = [], ask(args.url, champion, champion.bundle.examples["instances"])[1]
    size = min(BATCH, settings.serving.max_instances)
    for start in range(0, len(pairs), size):
        items = [item for item, _ in pairs[start : start + size]]
        answered, wrong = ask(args.url, champion, items)
        answers += answered
        different += wrong
    right = 0
    for answer, (_, label) in zip(answers, pairs, strict=True):
        right += champion.bundle.kind.is_right(answer, label)
        if args.feedback:
            post(args.url, "/feedback", {"prediction_id": answer["prediction_id"], "label": label})
    report = {
        "url": args.url,
        "split": args.split,
        "feedback": args.feedback,
        "rows": len(pairs),
        "corruption": args.corrupt,
        "left_out": len(drawn) - len(pairs),
        "different": different,
        "right": right / len(pairs),
        "abstained": sum(answer["abstain"] for answer in answers) / len(pairs),
        "seconds": round(time.perf_counter() - started, 3),
        "provenance": stamp(settings, "serve", champion.bundle.identity),
    }
    write_json(settings.paths.reports / "replay.json", report)
    what = f"{len(pairs)} rows of {args.split}"
    if args.corrupt:
        what += f" under {args.corrupt}, which made {report['left_out']} more invalid"
    verdict = f"{report['right']:.3f} right, {different} answers differ from the bundle's own"
    print(f"replay: {what}: {verdict}", file=sys.stderr)
    return 1 if different else 0


def rows(settings: Settings, split: str, count: int) -> Pairs:
    """Request items and true labels of up to `count` rows, without repetition."""
    import pandas as pd

    path = settings.paths.splits / f"{split}.parquet"
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: `make pipeline` makes it, or take another --split"
        )
    if count < 1:
        raise ValueError("--rows must be at least 1")
    table = pd.read_parquet(path)
    chosen = table.sample(min(count, len(table)), random_state=settings.seed).to_dict("records")
    features = Features.model_validate(settings.data.features)
    return [(row_to_instance(row, features), row["label"]) for row in chosen]


def corrupt(settings: Settings, champion: Champion, pairs: Pairs, text: str) -> Pairs:
    """Items under a corruption of the perturbation test, NAME:SEVERITY, with their labels; invalid
    ones are left out.
    """
    from ..task.behaviour import declare

    perturbations = declare(settings.data).perturbations
    name, _, severity = text.partition(":")
    if name not in perturbations or severity not in tuple("12345"):
        names = ", ".join(perturbations)
        raise ValueError(f"--corrupt {text!r}: write NAME:SEVERITY, 1 to 5, with one of {names}")
    inputs = champion.decode([Instance.model_validate(item) for item, _ in pairs])
    changed = perturbations[name](inputs, int(severity), np.random.default_rng(settings.seed))
    items, valid = inputs_to_instances(changed, champion.features), []
    for item, (_, label) in zip(items, pairs, strict=True):
        with suppress(ValueError):
            check_instance(Instance.model_validate(item), champion.features)
            valid.append((item, label))
    if not valid:
        raise ValueError(f"--corrupt {text!r} makes every row invalid: choose a lower severity")
    return valid


def ask(url: str, champion: Champion, items: Items) -> tuple[Items, int]:
    """The server's predictions on items, and how many of them are not what the bundle says."""
    answered = post(url, "/predict", {"instances": items})
    version = answered["model"]["version"]
    if answered["model"]["identity"] != champion.bundle.identity:
        raise ValueError(f"{url} serves {version}, live/ names {champion.version}: restart it")
    inputs = champion.decode([Instance.model_validate(item) for item in items])
    expected = champion.encode(champion.predict(inputs).answers)
    tolerance = TOLERANCE * champion.bundle.card.label_scale
    pairs = zip(answered["predictions"], expected, strict=True)
    return answered["predictions"], sum(not same(*pair, tolerance) for pair in pairs)


def same(given: Any, expected: Any, tolerance: float) -> bool:
    """Whether two answers agree: numbers up to the tolerance, all else exactly."""
    if isinstance(expected, float):
        return bool(abs(given - expected) <= tolerance)
    if isinstance(expected, dict):
        return all(same(given[name], value, tolerance) for name, value in expected.items())
    if isinstance(expected, list) and len(given) == len(expected):
        return all(same(*pair, tolerance) for pair in zip(given, expected, strict=True))
    return bool(given == expected)


def post(url: str, path: str, content: dict[str, Any]) -> Any:
    """The JSON answer of a POST. Raises ValueError with the server's own words."""
    key = os.environ.get("API_KEYS", "").split(",")[0].strip()
    headers = {"Content-Type": "application/json", "X-API-Key": key}
    body = json.dumps(content).encode()
    request = Request(url.rstrip("/") + path, body, headers)
    direct = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    opener = build_opener(*[ProxyHandler({})][:direct])  # no proxy reaches this machine's loopback
    try:
        with opener.open(request, timeout=60) as response:
            return json.load(response)
    except HTTPError as error:
        with error:
            reason = error.read(2000).decode(errors="replace")
        raise ValueError(f"{url}{path} answered {error.code}: {reason}") from None
    except OSError as error:
        raise ValueError(
            f"no answer from {url} ({error}): run `make serve` in another terminal, or use --url"
        ) from None

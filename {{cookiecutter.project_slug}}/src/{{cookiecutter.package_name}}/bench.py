"""Speed of one part, as ratios measured side by side in one run: `bench serve`, `bench data`.

serve: requests per second of /predict, one row each, beside /healthz of the same server, which is what the framework
alone costs. data: rows per second and peak memory of validate and split on a made-up table, beside a bare read of the
same file. Prints a table and writes reports/bench-<name>.json.
"""

import argparse
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from .bench_data import bench_data
from .packaging.bundle import Bundle
from .params import load
from .provenance import read_json, write_json
from .settings import Settings

COMPOSES = True  # the name of the bench stands where other verbs have overrides
ROUNDS, SECONDS, CONNECTIONS = 5, 1.0, 8
DEADLINE = 60.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """The bench's name comes first; `key=value` may follow."""
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the table of `bench data`")
    parser.add_argument("--columns", type=int, default=20, help="of the table of `bench data`")


def run(_: Settings | None, args: argparse.Namespace) -> int:
    names = [a for a in args.overrides if "=" not in a]
    if names not in (["serve"], ["data"]):
        raise ValueError("name one bench: serve or data")
    settings = load([a for a in args.overrides if "=" in a])
    figures = bench_serve(settings) if names == ["serve"] else bench_data(args.rows, args.columns)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    report = {"bench": names[0], "time": datetime.now(UTC).isoformat(timespec="seconds"), **machine, "figures": figures}
    write_json(settings.paths.reports / f"bench-{names[0]}.json", report)
    for name, value in figures.items():
        print(f"{name:<50} {value:>10.4g}")
    return 0


def bench_serve(settings: Settings) -> dict[str, float]:
    """Medians over rounds in which both endpoints take turns."""
    champion = read_json(settings.paths.live / "current.json")["champion"]
    instance = Bundle.load(settings.paths.live / champion["path"]).examples["instances"][0]
    body = json.dumps({"instances": [instance]}).encode()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", str(__package__), "serve", f"serving.port={port}", "paths.store=.state/bench.db"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(server, port)
        rounds = [(rate(port, "POST", "/predict", body), rate(port, "GET", "/healthz", None)) for _ in range(ROUNDS)]
    finally:
        server.terminate()
        server.wait()
    return {
        "predictions per second": statistics.median(a for a, _ in rounds),
        "health checks per second": statistics.median(b for _, b in rounds),
        "predictions per health check": statistics.median(a / b for a, b in rounds),
    }


def wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Raises ValueError where the server ended or did not get ready in time."""
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends and server.poll() is None:
        try:
            if request(http.client.HTTPConnection("127.0.0.1", port, timeout=5), "GET", "/readyz", None) == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise ValueError("the server did not start: try `make serve` and read what it says")


def request(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> int:
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def rate(port: int, method: str, path: str, body: bytes | None) -> float:
    """Answered requests per second over several connections. Raises ValueError on any answer but 200."""

    def client(_: Any) -> int:
        connection, count = http.client.HTTPConnection("127.0.0.1", port, timeout=10), 0
        while time.perf_counter() < ends:
            status = request(connection, method, path, body)
            if status != 200:
                raise ValueError(f"{path} answered {status}")
            count += 1
        return count

    ends = time.perf_counter() + SECONDS
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(client, range(CONNECTIONS))) / SECONDS

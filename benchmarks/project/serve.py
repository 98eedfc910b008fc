"""Requests per second of /predict, one row each, beside /healthz of the same server: `make
bench-serve`.

The latter is what the framework alone costs.
"""

import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from common import PACKAGE, module, parser, report

ROUNDS, SECONDS, CONNECTIONS = 5, 1.0, 8
DEADLINE = 60.0


def measure(settings: Any, _: Namespace) -> dict[str, float]:
    """Medians over rounds in which both endpoints take turns."""
    champion = module("provenance").read_json(settings.paths.live / "current.json")["champion"]
    instance = module("packaging.bundle").Bundle.load(settings.paths.live / champion["path"]).examples["instances"][0]
    body = json.dumps({"instances": [instance]}).encode()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        PACKAGE,
        "serve",
        f"serving.port={port}",
        "paths.store=.state/bench.db",
    ]
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
    """Answered requests per second over several connections. Raises ValueError on any answer but
    200.
    """

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


if __name__ == "__main__":
    report("serve", measure, parser(__doc__))

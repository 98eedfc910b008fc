"""The tracker's web page, for the store in `tracking.uri`."""

import argparse
import os
import socket
import subprocess
import sys

from ..settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Runs until interrupted."""
    if settings.tracking.uri.startswith("http"):
        print(f"the tracker is a server: open {settings.tracking.uri}")
        return 0
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", args.port)) == 0:
            raise ValueError(f"port {args.port} is taken: choose another with --port")
    print(f"tracker on http://127.0.0.1:{args.port}, Ctrl-C ends it")
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        settings.tracking.uri,
        "--port",
        str(args.port),
    ]
    try:
        return subprocess.run(command, env=os.environ, check=False).returncode
    except KeyboardInterrupt:
        return 0

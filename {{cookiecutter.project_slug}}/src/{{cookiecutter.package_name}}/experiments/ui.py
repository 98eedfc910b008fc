"""The tracker's web page, for the store in `tracking.uri`."""

import argparse
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
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(args.port)]
    return subprocess.call([*command, "--backend-store-uri", settings.tracking.uri])

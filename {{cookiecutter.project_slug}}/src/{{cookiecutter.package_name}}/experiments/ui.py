"""The tracker's web page, for the store in `tracking.uri`."""

import argparse
import signal
import sys

from ..settings import Settings
from ..worktree import run_whole


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=5000)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Runs until interrupted."""
    if settings.tracking.uri.startswith("http"):
        print(f"the tracker is a server: open {settings.tracking.uri}")
        return 0
    # MLflow leaves its workers behind where it is asked to end.
    for number in filter(None, (signal.SIGTERM, getattr(signal, "SIGHUP", None))):
        signal.signal(number, signal.default_int_handler)
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(args.port)]
    return run_whole([*command, "--backend-store-uri", settings.tracking.uri])

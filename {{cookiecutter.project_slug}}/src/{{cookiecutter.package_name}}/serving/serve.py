"""Answers HTTP requests with the champion in live/ until SIGTERM or Ctrl+C, then stores what is
still queued and ends.

python -m <package> serve serving.port=9000
"""

import argparse
import logging
import signal
import socket
import sys
from types import FrameType

from .. import logs
from ..settings import Settings

GRACE_SECONDS = 10
BACKLOG = 2048


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Serves until told to stop. Raises ValueError if there is no model or the port is taken."""
    import uvicorn

    from .app import create
    from .predictor import load_live

    version = load_live(settings.paths.live).version
    listener = _listen(settings.serving.host, settings.serving.port)
    _log_server_errors(settings)
    config = uvicorn.Config(
        create(settings),
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)

    def stop(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn ends cleanly on these and then raises them again for whoever listened before: that
    # makes the exit code 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    url = address(*listener.getsockname()[:2])
    line = f"{settings.project.name} {version} answers at {url} (Ctrl+C ends it)"
    print(line, file=sys.stderr, flush=True)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def address(host: str, port: int) -> str:
    """The URL at which this machine reaches a server; one that listens everywhere at loopback."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:  # all addresses are those of IPv4, too
        listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
        )
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"cannot listen on {host}, port {port} ({error}): choose another with serving.port=..."
        ) from None
    # The protocol is named because asyncio looks at it: without, answers wait 40 ms for the
    # client's acknowledgement.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, listener.detach())


def _log_server_errors(settings: Settings) -> None:
    """The web server's warnings go where ours go."""
    theirs = logging.getLogger("uvicorn.error")
    theirs.handlers = logs.get("serve", settings.paths.logs).handlers
    theirs.setLevel(logging.WARNING)
    theirs.propagate = False

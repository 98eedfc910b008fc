"""Linters of other people's formats: found beside this Python or on the PATH, and a visible skip
where they are not.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def deploy() -> Path:
    return ROOT / "deploy"


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Runs a linter and returns its output; its complaint fails the test. REQUIRE_ALL=1 makes its
    absence a failure.
    """

    def run(name: str, *arguments: str | Path) -> str:
        places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        found = shutil.which(name, path=places)
        if found is None and os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(f"{name} is not installed")
        if found is None:
            pytest.skip(f"{name} is not installed")
        done = subprocess.run(
            [found, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str], int], bool]]:
    """Whether a container's health check is content where every path is answered with a status,
    and a proxy that does not answer is named.
    """
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    class Server(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path in ("/healthz", "/readyz") else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def check(command: list[str], status: int) -> bool:
        Server.status = status
        python, *words = [word.replace("8000", str(server.server_port)) for word in command]
        assert python == "python"
        done = subprocess.run([sys.executable, *words], capture_output=True, check=False)
        return done.returncode == 0

    yield check
    server.shutdown()
    server.server_close()
    thread.join()

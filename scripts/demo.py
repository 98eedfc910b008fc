"""make demo: generates a project in build/demo, runs its whole life once, and says what came out.

Set up, pipeline, serve, ask, monitor (no alarm), ask with corrupted rows, monitor (alarm), checklist. Exit code 0 when
every stage did what it should; no process is left behind, whatever happens.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "build" / "demo"
PROJECT = DEMO / "my-model"
PYTHON = PROJECT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TASK = os.environ.get("TASK")  # `make demo TASK=...`; the default answer otherwise
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy reaches this machine's loopback
READY_SECONDS, STOP_SECONDS = 60, 15
METRICS = ("accuracy", "f1_macro", "auroc", "log_loss", "r2", "rmse", "mae")


class StageFailed(Exception):
    """Says which stage failed and how."""


class Clock:
    """Prints each stage's start and time; keeps the times for the summary."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, name: str, what: str) -> Iterator[None]:
        print(f"\n▶ {name}: {what}", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        print(f"✔ {name} {self.seconds[name]:.1f} s", flush=True)


def environment() -> dict[str, str]:
    """The caller's, without what would lead a child to other environments; with a git identity where there is none."""
    env = {k: v for k, v in os.environ.items() if k not in ("VENV", "VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS")}
    who = ["git", "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"]
    if subprocess.run(who, capture_output=True, check=False).returncode != 0:
        for role in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{role}_NAME": "Demo", f"GIT_{role}_EMAIL": "demo@localhost"}
    return env


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all its children: politely, then not."""
    if os.name == "nt":
        process.kill()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


@contextlib.contextmanager
def started(command: list[str], env: dict[str, str], log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command in the project as a group of its own, which ends with the block."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb")) if log else None
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,
        )
        stack.callback(stop, process)
        yield process


def run(command: list[str], env: dict[str, str], expect: int = 0) -> None:
    """Runs a command to its end with its output on the terminal. Raises StageFailed on another exit code."""
    with started(command, env) as process:
        code = process.wait()
    if code != expect:
        raise StageFailed(f"exit code {code} instead of {expect} from: {' '.join(command)}")


def verb(name: str, *arguments: str) -> list[str]:
    return [str(PYTHON), "-m", "my_model", name, *arguments]


def bake(env: dict[str, str]) -> None:
    """A fresh project at the same place; only its environment is kept, so that nothing is downloaded twice."""
    kept = DEMO / ".venv"
    if PYTHON.exists() and not kept.exists():
        (PROJECT / ".venv").rename(kept)
    for leftover in [path for path in DEMO.glob("*") if path != kept]:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    DEMO.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "cookiecutter",
        "--no-input",
        "--default-config",
        "--output-dir",
        str(DEMO),
        str(ROOT),
        *([f"task={TASK}"] if TASK else []),
    ]
    if subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise StageFailed("cookiecutter could not generate the project")
    if kept.exists():
        kept.rename(PROJECT / ".venv")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns when /readyz answers 200. Raises StageFailed, with the server's last words, when that takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), DIRECT.open(f"{url}/readyz", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    words = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise StageFailed(f"the server did not become ready in {READY_SECONDS} s; its last words:\n{words}")


def story(clock: Clock, env: dict[str, str]) -> None:
    """Every stage in turn; stops at the first that fails."""
    what = f"a project with task={TASK}" if TASK else "a project with default answers"
    with clock.stage("generate", f"{what} in {PROJECT.relative_to(ROOT)}"):
        bake(env)
    with clock.stage("setup", "its environment and git repository (downloads the first time)"):
        run([sys.executable, "scripts/setup.py"], env)
    with clock.stage("pipeline", "ingest, validate, split, train, evaluate, package, promote, pull"):
        run(verb("pipeline"), env)
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", DEMO / "server.log"
    with started(verb("serve", f"serving.port={port}"), env, log) as server:
        with clock.stage("serve", f"the champion at {url}"):
            wait_until_ready(url, server, log)
        with clock.stage("ask", "300 rows of the test split"):
            run(verb("replay", "--split", "test", "--rows", "300", "--url", url), env)
        with clock.stage("monitor", "these requests look like the training data: no alarm"):
            run(verb("monitor"), env)
        worst = evaluation()["methods"]["M7"]["details"]["worst"]
        with clock.stage("ask corrupted", f"rows under what the model stands worst: {worst}"):
            for split in ("train", "test"):
                options = ["--split", split, "--rows", "300", "--corrupt", f"{worst}:5", "--url", url]
                run(verb("replay", *options), env)
        with clock.stage("monitor corrupted", "these do not: an alarm, exit code 3"):
            run(verb("monitor"), env, expect=3)
    with clock.stage("checklist", "what is proven"):
        run(verb("checklist"), env)


def metrics_table(report: dict[str, Any]) -> list[str]:
    """Test metrics of the model that won and of what it had to beat, best accuracy first."""
    chosen, found = report["candidate"], report["metrics"]
    shown = [m for m in METRICS if m in found[chosen]["test"]]
    lines = ["  " + "".join(f"{heading:>14}" for heading in ("test", *shown))]
    for name in sorted(found, key=lambda n: -found[n]["test"][shown[0]]):
        numbers = "".join(f"{found[name]['test'][m]:>14.4f}" for m in shown)
        lines.append(f"  {name:>14}{numbers}{'   <- chosen' if name == chosen else ''}")
    return lines


def evaluation() -> Any:
    return json.loads((PROJECT / "reports" / "evaluation.json").read_text(encoding="utf-8"))


def summary(clock: Clock) -> None:
    """What a newcomer wants to know after the first run."""
    found = evaluation()
    here = os.path.relpath(PROJECT)
    lines = ["", "=" * 78, "The model against what it has to beat:", *metrics_table(found)]
    lines += [f"  {found['selection']}", "", f"The gate's verdicts ({found['verdict']} over all):"]
    lines += [f"  {m['method']:>4} {m['title']:<18} {m['outcome']:<12} {m['why']}" for m in found["methods"].values()]
    lines += ["", "Times:", "  " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in clock.seconds.items())]
    lines += ["", "Reports:"]
    lines += [f"  {path}" for path in sorted((Path(here) / "reports").glob("*.html"))]
    lines += ["", "Go on:", f"  cd {here}"]
    lines += ["  make serve        # the server, and a page to try the model, at http://127.0.0.1:8000"]
    lines += ["  make ui           # the tracker: every run with parameters, metrics and plots"]
    lines += ["  make help         # everything else", "=" * 78]
    print("\n".join(lines), flush=True)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    signal.signal(signal.SIGTERM, interrupt)
    clock, env = Clock(), environment()
    try:
        story(clock, env)
        summary(clock)
    except StageFailed as failure:
        print(f"\nerror: the demo stopped: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that the demo started has been stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

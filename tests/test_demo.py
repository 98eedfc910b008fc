"""make demo's own promises: no process is left behind, a wrong exit code stops it, the summary says what matters."""

import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from conftest import load

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = load("scripts/demo.py")
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    return module


def gone(pid: int) -> bool:
    """Whether a process has ended, within a deadline; a zombie that waits for its parent has."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/stat")
        try:
            os.kill(pid, 0)
            if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_an_interruption_ends_children_and_their_children(demo: ModuleType, tmp_path: Path) -> None:
    log, environment = tmp_path / "out.log", dict(os.environ)
    with pytest.raises(KeyboardInterrupt), demo.started([sys.executable, "-c", PARENT], environment, log) as process:
        deadline = time.monotonic() + 20
        while not log.read_text(encoding="utf-8").strip():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise KeyboardInterrupt
    assert process.poll() is not None
    assert gone(int(log.read_text(encoding="utf-8")))


def test_another_exit_code_than_expected_stops_the_demo(demo: ModuleType) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    demo.run(command, dict(os.environ), expect=3)
    with pytest.raises(demo.StageFailed, match="exit code 3 instead of 0"):
        demo.run(command, dict(os.environ))


def test_a_server_that_dies_is_told_with_its_last_words(demo: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    command = [sys.executable, "-c", "print('no model to serve')"]
    with (
        demo.started(command, dict(os.environ), log) as process,
        pytest.raises(demo.StageFailed, match="no model to serve"),
    ):
        demo.wait_until_ready("http://127.0.0.1:9", process, log)


def test_the_summary_shows_the_baselines_and_the_verdicts(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = {"accuracy": 0.5, "f1_macro": 0.4, "log_loss": 1.0}
    report = {
        "candidate": "network",
        "selection": "network is better",
        "verdict": "pass",
        "metrics": {"constant": {"test": test}, "network": {"test": test | {"accuracy": 0.99}}},
        "methods": {"M6": {"method": "M6", "title": "Comparison", "outcome": "pass", "why": "better than all"}},
    }
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/evaluation.json").write_text(json.dumps(report), encoding="utf-8")
    (tmp_path / "reports/evaluation.html").touch()
    demo.summary(demo.Clock())
    shown = capsys.readouterr().out
    assert shown.index("network        0.9900") < shown.index("constant        0.5000")
    for words in ("<- chosen", "better than all", "evaluation.html", "make ui", "make serve"):
        assert words in shown

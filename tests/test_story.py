"""The whole run with the user's own commands: data, model, server, feedback, monitor, routine, a colleague's clone."""

import contextlib
import json
import re
import shutil
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from conftest import ROOT, Project, note_time, ran
from tasks import TASKS
from test_your_data import free_port, serving

pytestmark = pytest.mark.slow
READY_SECONDS = 60


def read(project: Project, name: str) -> Any:
    return json.loads((project.path / name).read_text(encoding="utf-8"))


def params(project: Project) -> Any:
    return yaml.safe_load((project.path / "params.yaml").read_text(encoding="utf-8"))


def identity(project: Project) -> str:
    return cast(str, read(project, "live/current.json")["champion"]["identity"])


def ask(url: str, body: Any = None) -> Any:
    """Answer to a GET, or to a POST of JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or "null")


@contextlib.contextmanager
def server(project: Project) -> Iterator[str]:
    """The project's server as a real process on a free port; its address, once it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python = Path(project.env["VENV"]) / "bin" / "python"
    with project.started(python, "-m", "my_model", "serve", f"serving.port={port}") as process:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + READY_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"not ready:\n{(project.path / 'process.log').read_text(encoding='utf-8')}")
            time.sleep(0.05)
        yield url


def replay(project: Project, url: str, *options: str, split: str = "test") -> None:
    project.python("-m", "my_model", "replay", "--split", split, "--rows", "300", "--url", url, *options)


@pytest.fixture(scope="module")
def monitored(trained: Project) -> Project:
    """The project after requests that look like the training data, feedback on them, and requests that do not."""
    shutil.rmtree(trained.path / "store", ignore_errors=True)
    with server(trained) as url:
        examples, labels = read(trained, "artifacts/bundle/examples.json"), params(trained)["data"]["labels"]
        answer = ask(f"{url}/predict", {"instances": examples["instances"][:2]})["predictions"]
        for said, raw in zip(answer, examples["raw"], strict=False):
            if labels:
                assert said["label"] == labels[raw.index(max(raw))]
            else:  # costs move the value, not the interval around what is expected
                assert sum(said["interval"]) / 2 == pytest.approx(raw[0], abs=0.01)
        truth = answer[0]["label"] if labels else 100.0
        ask(f"{url}/feedback", {"prediction_id": answer[0]["prediction_id"], "label": truth})
        replay(trained, url)
        clean = trained.run("make", "monitor", check=False)
        assert clean.returncode == 0, clean.stdout + clean.stderr
        worst = trained.task.damage or read(trained, "reports/evaluation.json")["methods"]["M7"]["details"]["worst"]
        for split in ("train", "test"):  # together they fill the monitor's window, whatever the task
            replay(trained, url, "--corrupt", f"{worst}:5", "--feedback", split=split)
        corrupted = trained.python("-m", "my_model", "monitor", check=False)
        assert corrupted.returncode == 3, corrupted.stdout + corrupted.stderr
    return trained


def test_the_model_is_good_and_better_than_the_baselines(trained: Project) -> None:
    report = read(trained, "reports/evaluation.json")
    metric = params(trained)["data"]["goal"]["metric"]
    score = {name: found["test"][metric] for name, found in report["metrics"].items()}
    best = score.pop(report["candidate"])
    assert best >= trained.task.floor and best > max(score["constant"], score["heuristic"])
    assert report["verdict"] == "pass" and {"M6", "M7", "M8", "M9", "M10", "M11", "M12"} <= set(report["methods"])


def test_the_champion_is_what_was_packaged(trained: Project) -> None:
    import hashlib

    manifest = (trained.path / "artifacts/bundle/manifest.json").read_bytes()
    assert identity(trained) == hashlib.sha256(manifest).hexdigest()
    (record,) = (trained.path / "audit/promotions.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(record)["identity"] == identity(trained)


def test_a_second_pipeline_runs_nothing(trained: Project) -> None:
    before = identity(trained)
    done = trained.run("make", "pipeline")
    assert ran(done) == [] and "nothing new" in done.stdout + done.stderr
    assert identity(trained) == before


def test_a_serving_setting_retrains_nothing_and_a_model_setting_does(trained: Project) -> None:
    done = trained.python("-m", "dvc", "status", "--json")
    assert json.loads(done.stdout) == {}
    params = trained.path / "params.yaml"
    text = params.read_text(encoding="utf-8")
    try:
        params.write_text(text.replace("port: 8000", "port: 8001"), encoding="utf-8")
        assert json.loads(trained.python("-m", "dvc", "status", "--json").stdout) == {}
        params.write_text(text.replace("batch_size: 32", "batch_size: 33"), encoding="utf-8")
        assert set(json.loads(trained.python("-m", "dvc", "status", "--json").stdout)) == {"train"}
    finally:
        params.write_text(text, encoding="utf-8")


FIRST = ["make pipeline", "make serve", "make replay", "make monitor"]


def test_the_first_commands_of_both_readmes_work_in_their_order(trained: Project) -> None:
    """By somebody who asks once on the page and reads nothing else, behind a company's proxy."""
    for folder in (trained.path, ROOT):
        commands = re.findall(r"^    (make [a-z]+)", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
        assert [command for command in commands if command in FIRST] == FIRST
    shutil.rmtree(trained.path / "store", ignore_errors=True)
    proxy = dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9") | {"NO_PROXY": "", "no_proxy": ""}
    behind = Project(trained.path, trained.env | proxy, trained.task)
    address = f"127.0.0.1:{free_port()}"
    port = f"OVERRIDES=serving.port={address.partition(':')[2]}"
    behind.run("make", "pipeline")
    with serving(behind, f"make serve {port}", address):
        items = read(trained, "artifacts/bundle/examples.json")["instances"][:1]
        ask(f"http://{address}/predict", {"instances": items})
        behind.run("make", "replay", port)
        behind.run("make", "monitor")
    shutil.rmtree(trained.path / "store")


def test_clean_requests_raise_no_alarm_and_corrupted_ones_do(monitored: Project) -> None:
    assert read(monitored, "reports/monitor.json")["alarm"] is True
    assert "alarm" in (monitored.path / "reports/monitor.html").read_text(encoding="utf-8").lower()


def test_a_clone_with_pulled_data_retrains_nothing_and_serves_the_same_model(trained: Project) -> None:
    trained.run("git", "add", "--all")
    trained.run("git", "commit", "--quiet", "--allow-empty", "--message", "The first model")
    trained.run("make", "push")
    clone = Project(trained.path.parent / "clone", {k: v for k, v in trained.env.items() if k != "PYTHONPATH"})
    shutil.rmtree(clone.path, ignore_errors=True)
    trained.run("git", "clone", "--quiet", trained.path, clone.path)
    clone.env.update(PYTHONPATH=str(clone.path / "src"))
    assert not (clone.path / "mlflow.db").exists() and not (clone.path / "data/raw").exists()
    clone.python("-m", "dvc", "pull")
    done = clone.python("-m", "my_model", "pipeline")
    assert ran(done) == []
    assert identity(clone) == identity(trained)
    assert (clone.path / "mlflow.db").exists()
    with server(clone) as url:
        assert ask(f"{url}/v2/models/my-model")["name"] == "my-model"


def test_a_person_tries_the_page_and_says_whether_it_was_right(trained: Project, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with server(trained) as url, api.sync_playwright() as play:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        context = play.chromium.launch_persistent_context(tmp_path, executable_path=chromium, args=options)
        page, problems = context.new_page(), list[str]()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.extend([] if request.url.startswith(url) else [request.url]))
        page.goto(url)
        said = trained.task.try_page(page, api.expect)
        context.close()
    assert problems == []
    with contextlib.closing(sqlite3.connect(trained.path / "store/predictions.db")) as store:
        rows = store.execute("SELECT f.label FROM predictions p JOIN feedback f USING (prediction_id)").fetchall()
    assert said in {str(label) for (label,) in rows}


def unproven(project: Project) -> dict[str, str]:
    """What each row still lacks, but for those of which checklist.yaml itself says so."""
    found = json.loads(project.python("-m", "my_model", "checklist", "--json").stdout)
    rows = yaml.safe_load((project.path / "checklist.yaml").read_text(encoding="utf-8"))
    whole = {row for row, entry in rows.items() if "missing" not in entry}
    assert len(whole) >= 25
    lacking = {row for row in rows if row not in whole and found[row]["status"] != "not applicable"}
    assert {found[row]["status"] for row in lacking} == {"not yet"}
    return {row: found[row]["proof"] for row in whole if found[row]["status"] not in ("proven", "not applicable")}


def test_its_own_tests_pass_and_prove_their_rows(monitored: Project) -> None:
    """After pipeline, requests and `make test`, the rest is what only the tests of the machinery prove."""
    started = time.monotonic()
    monitored.run("make", "test")
    note_time(
        "own tests" if monitored.task == TASKS[0] else f"{monitored.task.name}, own tests", time.monotonic() - started
    )
    assert {why for why in unproven(monitored).values() if "make test-machinery" not in why} == set()


@pytest.mark.deep
def test_the_tests_of_the_machinery_prove_the_rest(monitored: Project) -> None:
    """On one task, since the machinery is the same in all."""
    if monitored.task != TASKS[0]:
        return
    started = time.monotonic()
    monitored.run("make", "test-machinery")
    note_time("machinery", time.monotonic() - started)
    assert unproven(monitored) == {}


def test_the_routine_retrains_with_feedback_through_the_same_gates(monitored: Project) -> None:
    """Last, since it may move the champion."""
    monitored.run("git", "add", "--all")
    monitored.run("git", "commit", "--quiet", "--allow-empty", "--message", "Before the routine")
    done = monitored.python("-m", "my_model", "routine", check=False)
    assert done.returncode in (0, 3, 4), done.stdout + done.stderr
    line = json.loads((monitored.path / "logs/routine.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert line["exit_code"] == done.returncode and line["branch"], line
    files = monitored.run("git", "diff", "--name-only", "HEAD", line["branch"]).stdout.split()
    assert "dvc.lock" in files and any("feedback" in name for name in files)
    changed = monitored.run("git", "status", "--porcelain").stdout.split()
    assert set(changed) <= {"M", "audit/promotions.jsonl"}  # the checkout itself is not touched but for the record

"""The first hour with somebody else's data: drafted, trained, served, asked in a browser, watched."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Baker, Project
from tasks import TASKS, Task
from test_story import ask, read, replay
from test_your_data import free_port, serving

pytestmark = [pytest.mark.slow, pytest.mark.deep]


@dataclass(frozen=True)
class Hour:
    """`said` are words of `describe` or of the draft; `mended` leads from a first refusal to data that pass."""

    task: Task
    data: str  # of tests/cases.py
    options: tuple[str, ...]
    drafted: tuple[str, ...]
    try_page: Callable[[Any, Any, Path], None]  # (page, expect, data)
    mended: Callable[[Project, Path], None] | None = None
    overrides: tuple[str, ...] = ()


def without_broken_pictures(project: Project, pictures: Path) -> None:
    """What is broken is named by its path, all at once; once it is gone, the source is read again."""
    refused = project.run("make", "pipeline", f"EXPERIMENT={pictures.stem}", check=False)
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "stripes/broken.jpg, stripes/notes.png" in said and "make refresh" in said
    for name in ("broken.jpg", "notes.png"):
        (pictures / "stripes" / name).unlink()
    project.run("make", "refresh", f"EXPERIMENT={pictures.stem}")


def ask_about_a_tree(page: Any, expect: Any, _: Path) -> None:
    page.click("#examples button >> nth=0")
    expect(page.locator("#answer")).to_contain_text("% sure")
    page.fill("input[name=height]", "")  # may be missing
    page.fill("input[name='leaf length']", "12")
    page.click("#form button[type=submit]")
    expect(page.locator("#answer")).to_contain_text("oak")


def ask_about_a_flat(page: Any, expect: Any, _: Path) -> None:
    assert page.locator("[name=sold]").count() == 0  # it only splits
    page.click("#examples button >> nth=0")
    expect(page.locator("#set")).to_contain_text("Probably between")
    page.fill("input[name=area]", "99999")
    page.click("#form button[type=submit]")
    expect(page.locator("#answer")).to_contain_text("Please mend: area")
    page.fill("input[name=area]", "120")
    page.click("#form button[type=submit]")
    expect(page.locator("#set")).to_contain_text("Probably between")


def ask_about_a_photograph(page: Any, expect: Any, pictures: Path) -> None:
    for kind in ("two words", "stripes"):
        page.set_input_files("#file", str(sorted((pictures / kind).glob("picture 11.jpeg"))[0]))
        expect(page.locator("#answer")).to_contain_text(kind)


HOURS = [
    Hour(TASKS[1], "trees.csv", (), ("kind: multiclass", 'optional: ["height", "bark"]'), ask_about_a_tree),
    Hour(
        *(TASKS[1], "flats.parquet", ("TIME=sold",), ("kind: regression", 'format: "%d/%m/%Y"'), ask_about_a_flat),
        overrides=("OVERRIDES=trainer.max_epochs=3",),
    ),
    Hour(TASKS[0], "photographs", (), ("kind: binary",), ask_about_a_photograph, without_broken_pictures),
]


def in_a_browser(url: str, hour: Hour, data: Path, folder: Path) -> None:
    """The page in Chromium, asked as a person does; it loads nothing from elsewhere and has no errors."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        context = play.chromium.launch_persistent_context(folder / "browser", executable_path=chromium, args=options)
        page, problems = context.new_page(), list[str]()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.extend([] if request.url.startswith(url) else [request.url]))
        page.goto(url)
        hour.try_page(page, api.expect, data)
        page.screenshot(path=folder / "page.png", full_page=True)
        context.close()
    assert problems == []


@pytest.mark.parametrize("hour", HOURS, ids=lambda hour: hour.data.partition(".")[0])
def test_somebody_elses_data_are_served_and_watched(hour: Hour, shared: Project, fresh: Baker, tmp_path: Path) -> None:
    project, name = fresh(task=hour.task.name), Path(hour.data).stem
    project.env["VENV"] = shared.env["VENV"]
    project.python(ROOT / "tests" / "cases.py", tmp_path / "cases", "first_hours")
    data = project.path / "data" / hour.data
    shutil.move(tmp_path / "cases" / hour.data, data)
    project.run("make", "describe", f"DATA=data/{hour.data}", *hour.options)
    draft = (project.path / "configs" / "data" / f"{name}.yaml").read_text(encoding="utf-8")
    assert all(words in draft for words in hour.drafted)
    if hour.mended:
        hour.mended(project, data)
    project.run("make", "pipeline", f"EXPERIMENT={name}", *hour.overrides)
    assert "all gates passed" in (project.path / "audit" / "promotions.jsonl").read_text(encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with serving(project, f"make serve OVERRIDES=serving.port={address.partition(':')[2]}", address):
        url = f"http://{address}"
        (example, *_) = read(project, "artifacts/bundle/examples.json")["instances"]
        (answer,) = ask(f"{url}/predict", {"instances": [example]})["predictions"]
        in_a_browser(url, hour, data, tmp_path)
        replay(project, url, "--feedback")
    ask_again = read(project, "reports/replay.json")
    assert ask_again["different"] == 0 and answer["prediction_id"]
    project.run("make", "monitor", check=False)
    report = json.loads((project.path / "reports" / "monitor.json").read_text(encoding="utf-8"))
    assert report["verdict"] in ("alarm", "no alarm", "cannot tell"), report["verdict"]

"""One row per task: the only place outside of its folder where a task is spoken of."""

import csv
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Look = Callable[[Any, Any], str]  # (page, expect) -> the label that was stored


@dataclass(frozen=True)
class Task:
    """`floor` of the score on the demo data; `words` that are its own; `try_page` asks on the page as a person does.

    damage_<name>.py beside this file holds what tests/gate.py does to the demo's network.
    """

    name: str
    words: re.Pattern[str]
    floor: float
    dependency: str | None
    try_page: Look
    own_data: Callable[[Any], None]  # makes the data that docs/your_data.md speaks of, and
    own_label: str  # what its last request is answered
    kinds: dict[str, str]  # of its data sets: the setting that chooses one, and the kind that follows
    entangled: frozenset[str] = frozenset()  # methods that refuse many damages: near-duplicates share small slices
    damage: str | None = None  # of requests, which makes rows that are new; None: what the model stands worst


DIGITS = {
    "0": [[(0.5 + 0.2 * math.cos(a / 4), 0.5 + 0.3 * math.sin(a / 4)) for a in range(27)]],
    "1": [[(0.4, 0.3), (0.52, 0.18), (0.52, 0.82)]],
    "7": [[(0.3, 0.2), (0.7, 0.2), (0.5, 0.5), (0.42, 0.85)], [(0.38, 0.5), (0.64, 0.5)]],
}


def draw(page: Any, strokes: list[list[tuple[float, float]]]) -> None:
    """Strokes on the page's canvas with the mouse; points are shares of its width and height."""
    box = page.locator("#canvas").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def draw_digits(page: Any, expect: Any) -> str:
    expect(page.locator("#about")).to_contain_text("Predicts the digit from a drawing or a picture: 0, 1, 2")
    for digit, strokes in DIGITS.items():
        page.click("#clear")
        draw(page, strokes)
        expect(page.locator("#answer")).to_contain_text(digit)
        expect(page.locator("#answer")).to_contain_text("% sure")
    page.click("#right")
    expect(page.locator("#thanks")).to_contain_text("noted as 7")
    return "7"


def fill_in_a_patient(page: Any, expect: Any) -> str:
    expect(page.locator("#about")).to_contain_text("Predicts progression of diabetes within a year from age, bmi")
    page.click("#examples button >> nth=0")
    expect(page.locator("#set")).to_contain_text("Probably between")
    page.fill("input[name=bmi]", "400")
    page.click("#form button[type=submit]")
    expect(page.locator("#answer")).to_contain_text("Please mend: bmi")
    page.fill("input[name=bmi]", "31")
    page.select_option("select[name=sex]", "2")
    page.click("#form button[type=submit]")
    expect(page.locator("#set")).to_contain_text("Probably between")
    page.fill("#truth", "150")
    page.click("#value button")
    expect(page.locator("#thanks")).to_contain_text("noted as 150")
    rows = b"who;age;sex;bmi;bp\nme;50;1;26,5;95\nyou;60;2;30;100\n"
    page.set_input_files("#file", {"name": "rows.csv", "mimeType": "text/csv", "buffer": rows})
    expect(page.locator("#answer")).to_contain_text("2 rows are answered")
    expect(page.locator("#rows")).to_contain_text("you")
    return "150.0"


DRAW = """
import random
from pathlib import Path
from PIL import Image, ImageDraw

COLOURS = {"leaf": (60, 150, 60), "lemon": (230, 210, 60), "plum": (110, 50, 130)}
rng = random.Random(0)
for label, colour in COLOURS.items():
    folder = Path("data/pictures", label)
    folder.mkdir(parents=True)
    for number in range(200):
        width, height = rng.randint(64, 160), rng.randint(64, 160)
        grey = rng.randint(150, 239)
        noise = Image.frombytes("L", (width, height), rng.randbytes(width * height))
        ground = noise.point(lambda v: grey + v // 8 - 16)
        picture = Image.merge("RGB", [ground.point(lambda v, d=rng.randint(-12, 12): v + d) for _ in range(3)])
        r = min(width, height) * rng.uniform(0.25, 0.42)
        x, y = rng.uniform(r, width - r), rng.uniform(r, height - r)
        fill = tuple(min(255, max(0, c + rng.randint(-30, 30))) for c in colour)
        draw = ImageDraw.Draw(picture)
        if label == "lemon":
            draw.ellipse((x - r, y - 0.7 * r, x + r, y + 0.7 * r), fill)
        elif label == "plum":
            draw.ellipse((x - 0.8 * r, y - r, x + 0.8 * r, y + r), fill)
        else:
            draw.polygon([(x, y - r), (x - 0.7 * r, y + 0.4 * r), (x, y + r), (x + 0.7 * r, y + 0.4 * r)], fill)
        picture.save(folder / f"{number:03}.jpg", quality=90)
"""


def pictures(project: Any) -> None:
    """RGB JPEGs of mixed sizes from 64 pixels on, in three folders."""
    project.python("-c", DRAW)
    sizes = {path.stat().st_size for path in (project.path / "data" / "pictures").rglob("*.jpg")}
    assert len(sizes) > 100


def customers(project: Any) -> None:
    """A CSV with numbers, categories, a code with leading zeros and missing values: who leaves?"""
    rng = random.Random(0)
    with (project.path / "data" / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["customer", "age", "plan", "region", "monthly_cost", "calls", "left"])
        for number in range(1200):
            age, plan = rng.randint(18, 80), rng.choice(["basic", "plus", "family"])
            cost, calls = round(rng.uniform(5, 80), 2), rng.randint(0, 12)
            odds = 0.09 * (cost - 42) + 0.7 * (calls - 6) + {"basic": 1.5, "plus": 0, "family": -1.5}[plan]
            left = "yes" if odds + rng.gauss(0, 0.5) > 0 else "no"
            missing = rng.random()
            table.writerow(
                [
                    f"c{number:05}",
                    "" if missing < 0.03 else age,
                    "" if missing > 0.98 else plan,
                    rng.choice(["01", "02", "10"]),
                    cost,
                    calls,
                    left,
                ]
            )


def words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![a-z])({pattern})(?![a-z])", re.IGNORECASE)


IMAGE_WORDS = words("digits?|pixels?|cnn|image_classification|pillow|PIL")
TABULAR_WORDS = words("tabular(?!-nums)|diabetes|breast_cancer|bmi|mlp|patients?")
ENTANGLED = frozenset({"M8", "M12"})
TASKS = [
    Task("image_classification", IMAGE_WORDS, 0.97, "pillow", draw_digits, pictures, "plum", {}, ENTANGLED, "erase"),
    Task("tabular", TABULAR_WORDS, 0.35, None, fill_in_a_patient, customers, "yes", {"data=breast_cancer": "binary"}),
]

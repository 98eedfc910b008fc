"""The pages in Chromium, with made-up models: what they say of one, what they take, and that nothing old stays."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from pages import CHROMIUM, Predict, classes, numbers, ok, refused, schema, served, value
from tasks import TASKS

PICTURES, TABLES = (task.name for task in TASKS)
LONG = ["Longleaf tidal marsh orchid (Platanthera)", "<b>Brick</b> & stone with lime mortar, old", "O" * 40, "10"]
PICTURE = {"features": {"drawn": None, "max_body_bytes": 1_000_000}}
PIXEL = bytes.fromhex(  # a PNG of one pixel
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738"
    "550000000049454e44ae426082"
)
FLAT = schema(
    {**numbers(area=(10, 500), rooms=(1, 9)), "town": {"type": "string", "enum": ["A", "B; b"]}},
    optional=("rooms",),
    examples=({"area": 80, "rooms": 3, "town": "A"},),
)
RENT = {"title": "Rents", "predicts": "monthly_rent", "unit": "EUR"}
OLD = "#judge, #note, #set, #bars, #many"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as play:
        window = play.chromium.launch(executable_path=chromium, args=CHROMIUM)
        yield window
        window.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    tab, problems = browser.new_page(), list[str]()
    tab.on("pageerror", lambda error: problems.append(str(error)))
    yield tab
    tab.close()
    assert problems == []


def shows(page: Any, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#answer').textContent.includes(text)", arg=text)


def only(page: Any, text: str) -> None:
    """The answer is this line, and nothing of an earlier one is to be seen."""
    shows(page, text)
    assert [box for box in page.locator(OLD).all() if box.is_visible()] == []


def choose(page: Any, content: str | bytes, name: str = "rows.csv") -> None:
    data = content if isinstance(content, bytes) else content.encode()
    page.set_input_files("#file", {"name": name, "mimeType": "", "buffer": data})


def hand_over(page: Any, event: str, text: str | None = None, file: bytes | None = None) -> None:
    """Drops or pastes a text or a file onto the page."""
    page.evaluate(
        """([event, text, file]) => {
          const data = new DataTransfer();
          if (text !== null) data.setData("text/plain", text);
          if (file) data.items.add(new File([new Uint8Array(file)], "given", {type: "image/png"}));
          const given = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
          const made = event === "drop" ? new DragEvent("drop", given) : new ClipboardEvent("paste", given);
          document.body.dispatchEvent(made);
        }""",
        [event, text, list(file) if file else None],
    )


def rents(items: list[Any]) -> tuple[int, Any]:
    if len(items) > 5:
        return refused(f"instances: at most 5 at a time, got {len(items)}")
    wrong = next((i for i, item in enumerate(items) if not isinstance(item.get("area"), int | float)), None)
    if wrong is not None:
        return refused(f"instances[{wrong}].area: must be a number from 10 to 500")
    return ok([value(10 * item["area"] + item.get("rooms", 0)) for item in items])


@pytest.mark.parametrize("task", [PICTURES, TABLES])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_long_names_and_marks_of_html_break_nothing(task: str, width: int, page: Any) -> None:
    about = {"title": "Plants & <i>stones</i> " + "x" * 40, "labels": LONG, **PICTURE}
    page.set_viewport_size({"width": width, "height": 900})
    with served(task, about, lambda items: ok([classes(LONG, [0.15, 0.55, 0.25, 0.05])] * len(items)), FLAT) as url:
        page.goto(url)
        page.wait_for_selector("#model")
        assert page.title() == about["title"] and page.inner_text("#title") == about["title"]
        assert all(name in page.inner_text("#about") for name in (*LONG, "Version 3"))
        if task == TABLES:
            choose(page, "key,area,town\n" + "".join(f"{'k' * 40}{i},80,A\n" for i in range(3)))
            page.click("#rows button >> nth=1")
        else:
            choose(page, PIXEL, "p.png")
        shows(page, LONG[1])
        assert page.locator("#bars .name").all_inner_texts() == LONG  # as they are configured, in that order
        assert page.locator("#labels button").all_inner_texts() == LONG
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for box in page.locator("#answer, #set, #bars li, #labels button, #about").all():
            assert box.bounding_box()["x"] + box.bounding_box()["width"] <= width
            assert box.evaluate("one => one.scrollWidth <= one.clientWidth + 1"), "letters leave their box"
        assert page.locator("b, i").count() == 0


def test_only_drawn_pictures_can_be_drawn(page: Any) -> None:
    labels, sent = ["9a", "10"], list[Any]()

    def predict(items: list[Any]) -> tuple[int, Any]:
        sent.extend(items)
        return ok([classes(labels, [0.9, 0.1])])

    for drawn, ground in (("light", 0), ("dark", 255), (None, None)):
        about = {"labels": labels, "features": {"drawn": drawn, "max_body_bytes": 1_000_000}}
        with served(PICTURES, about, predict) as url:
            page.goto(url)
            page.wait_for_selector("#model")
            assert page.locator("#canvas").is_visible() == (drawn is not None)
            assert ("Draw" in page.inner_text("#how")) == (drawn is not None)
            if drawn is None:
                continue
            assert page.evaluate("context.getImageData(1, 1, 1, 1).data[0]") == ground
            page.click("#canvas", position={"x": 60, "y": 60})
            shows(page, "9a")
            assert page.locator("#bars .name").all_inner_texts() == labels
            size = "new Promise(done => {const one = new Image(); one.onload = () => done(one.width); one.src = %s})"
            assert page.evaluate(size % repr("data:image/png;base64," + sent[-1]["image"])) == 64


def test_a_picture_that_fails_leaves_nothing_of_the_last_one(page: Any) -> None:
    def predict(items: list[Any]) -> tuple[int, Any]:
        if items[0]["image"].startswith("iVBOR"):
            return ok([classes(["a", "b"], [0.5, 0.5])])
        return refused("instances[0].image: must be a whole PNG, JPEG, WebP, BMP, TIFF or GIF file")

    with served(PICTURES, {"labels": ["a", "b"], **PICTURE}, predict) as url:
        page.goto(url)
        page.wait_for_selector("#model")
        for event, text, content, words in (
            ("choose", None, b"no picture", "No answer: image: must be a whole PNG"),
            ("choose", None, b"", "is empty"),
            ("choose", None, b"x" * 800_000, "800000 bytes, at most 749900 here"),
            ("drop", None, b"no picture", "must be a whole PNG"),
            ("drop", "a text", None, "that was no picture file"),
            ("paste", None, b"no picture", "must be a whole PNG"),
            ("paste", "a text", None, "that was no picture file"),
        ):
            hand_over(page, "paste" if event == "drop" else "drop", file=PIXEL)
            shows(page, "50.0 % sure")
            assert page.locator("#picture").is_visible() and page.locator("#bars").is_visible()
            if event == "choose":
                choose(page, content or b"", "notes.png")
            else:
                hand_over(page, event, text, content)
            only(page, words)
            assert not page.locator("#picture").is_visible()


def test_rows_of_files_as_people_have_them_are_answered(page: Any) -> None:
    with served(TABLES, RENT, rents, FLAT) as url:
        page.goto(url)
        page.wait_for_selector("#model")
        assert "Predicts monthly rent in EUR from area, rooms and town. Version 3." in page.inner_text("#about")
        one = "1000 EUR"  # 10 x 100
        for text in (
            "area,rooms,town\n100,0,A\n",
            '\ufeff"town";"key";"area"\r\n"B; b";k1;100,0\r\n'.encode(),
            "\ufeffarea\ttown\n100\tA".encode("utf-16-le"),
            'town,note,area\nA,"a line\nbreak, ""quoted""",100\n\n',
            "100,0,A",
            "note;area;town\nKöln;100;A\n".encode("cp1252"),
        ):
            page.click("#clear")
            choose(page, text)
            shows(page, one)
            assert page.input_value("[name=area]") == "100" and page.locator("#judge").is_visible()
        page.click("#clear")
        hand_over(page, "drop", text="area,town\n100,A")
        shows(page, one)
        page.click("#clear")
        hand_over(page, "paste", text="area\ttown\n100\tA\n")
        shows(page, one)
        choose(page, "id,area,town,left,who,more\nx1,100,A,no,me,1\nx2,200,A,yes,you,2\n")
        shows(page, "2 rows are answered")
        assert page.input_value("[name=area]") == "100"
        table = [row.split("\t") for row in page.inner_text("#rows").replace("\n\t", "\t").splitlines()]
        assert table[0] == ["row", "id", "left", "who", "monthly rent EUR", "probably"]
        assert [cell.strip() for cell in table[2][1:]] == ["x2", "yes", "you", "2000", "1990 to 2010"]
        page.click("#rows button >> nth=1")
        shows(page, "2000 EUR")
        assert page.inner_text("#set") == "Probably between 1990 and 2010 EUR."
        page.fill("#truth", "2100")
        page.click("#value button")
        page.wait_for_function("document.querySelector('#thanks').textContent.includes('noted as 2100 EUR')")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("area,rooms\n1,2\n", "it lacks the columns town"),
        ("a,b\n1,2\n", "the first line must name the columns area, rooms, town"),
        ("area,town\n100,A\nmany,A\n", "row 2, area: must be a number"),
        ("area,town\n100,A\n100\n", "row 2 has 1 fields instead of 2"),
        ("area,town,area\n1,A,2\n", "twice: area"),
        ("area,town\n", "no row below its header"),
        ("", "there is no row"),
        ("area,town\n" + "100,A\n" * 6, "rows: at most 5 at a time"),
        ("area,town\n" + "100,A\n" * 900_000, "too large: at most 5 MB"),
        (b"PK\x03\x04\0\0", "is no CSV file"),
        ('area,town\n"1"0,A\n', "line 2 has a quote inside"),
    ],
)
def test_a_table_that_fails_is_one_line_beside_nothing_old(text: str | bytes, words: str, page: Any) -> None:
    with served(TABLES, RENT, rents, FLAT) as url:
        page.goto(url)
        page.click("#examples button")
        shows(page, "EUR")
        choose(page, text)
        only(page, words)
        choose(page, "area,town\n100,A\n200,A\n")
        shows(page, "2 rows are answered")
        if isinstance(text, str) and len(text) < 1000:
            hand_over(page, "drop", text)
            only(page, words)


@pytest.mark.parametrize(
    "failure", [refused("7 requests are being worked on: try again", 503), (502, "<html>Bad Gateway</html>")]
)
def test_a_request_that_fails_leaves_nothing_of_the_last_answer(failure: tuple[int, Any], page: Any) -> None:
    replies: list[tuple[int, Any]] = []
    predict: Predict = lambda items: replies.pop() if replies else rents(items)  # noqa: E731
    with served(TABLES, RENT, predict, FLAT) as url:
        page.goto(url)
        page.click("#examples button")
        shows(page, "EUR")
        replies.append(failure)
        page.click("#form button[type=submit]")
        only(page, "No answer: ")
        page.click("#form button[type=submit]")
        shows(page, "EUR")
        page.fill("[name=area]", "81")
        only(page, "Nothing asked yet.")  # of another row

"""Inputs of the kinds that users have: each is read, split and drafted right, or refused in one line that helps."""

import json
from typing import Any

import pytest
from conftest import ROOT, Baker, Project
from tasks import TASKS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def outcomes(shared: Project, bake: Baker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a project of tables did with every case."""
    project, folder = bake(task=TASKS[1].name, project_name="Other Data"), tmp_path_factory.mktemp("cases")
    runner = Project(project.path, {**project.env, "VENV": shared.env["VENV"]})
    runner.python(ROOT / "tests" / "cases.py", folder)
    runner.python(ROOT / "tests" / "case_runs.py", project.path, folder, folder / "results.json")
    return dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))


@pytest.fixture
def outcome(outcomes: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(outcomes[request.node.name.removeprefix("test_")])


SPLIT = {"describe": 0, "ingest": 0, "validate": 0, "split": 0}


def refusal(outcome: dict[str, Any], verb: str) -> str:
    """The one line that says why a verb refused."""
    assert outcome["codes"][verb] != 0
    lines = [line for line in outcome["said"][verb].splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return str(lines[0])


def order(outcome: dict[str, Any], name: str) -> list[int]:
    """Row numbers in the snapshot of the rows of a split."""
    places = {key: i for i, key in enumerate(outcome["facts"]["ids"])}
    return [places[key] for key in outcome["facts"]["splits"][name]]


def test_keyless(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and outcome["facts"]["ids"] == [str(i) for i in range(300)]


def test_gzipped(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    assert outcome["facts"] == outcomes["keyless"]["facts"]


def test_utf16(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    assert outcome["facts"] == outcomes["keyless"]["facts"] and '"encoding": "utf-16"' in outcome["config"]


def test_integer_key(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and outcome["facts"]["ids"][0] == "1000"
    assert outcome["facts"]["values"]["label"] == ["False", "True"]
    assert outcome["facts"]["values"]["c"] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("extra_field", "extra_field.csv, line 2: 4 fields where the header has 3"),
        ("short_row", "short_row.csv, line 41: 3 fields where the header has 4"),
        ("unclosed", "unclosed.csv, line 121: "),
    ],
)
def test_a_row_of_another_length_is_named(name: str, words: str, outcomes: dict[str, Any]) -> None:
    for verb in ("describe", "ingest"):
        assert words in refusal(outcomes[name], verb)


def test_na_category(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and outcome["facts"]["missing"]["c"] == 0
    assert outcome["facts"]["values"]["c"] == ["EU", "NA", "None", "null"]


def test_na_numbers(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    assert (
        outcome["codes"] == SPLIT and outcome["facts"]["missing"]["a"] == 6 and 'missing: ["n/a"]' in outcome["config"]
    )
    unsaid = outcomes["na_numbers_unsaid"]
    assert (
        unsaid["codes"]["validate"] == 1
        and "name it in data.missing (6 times: 7, 57, 107)" in unsaid["said"]["validate"]
    )


def test_decimal_comma(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    plain = outcomes["keyless"]["facts"]["head"]
    for row, same in zip(outcome["facts"]["head"], plain, strict=True):
        assert row["a"] == pytest.approx(1000 * same["a"]) and row["b"] == same["b"]


def test_latin1(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    assert outcome["facts"]["values"]["c"] == ["Bonn", "Gießen", "Köln"]
    words = refusal(outcomes["latin1_unsaid"], "ingest")
    assert "latin1.csv is not written in utf-8" in words and "data.source.encoding" in words


def test_dates(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and "zone: UTC" in outcome["config"]
    assert sum(n > 1 for n in outcome["facts"]["different"]["numeric"]) > 6
    assert min(order(outcomes["dates_by_time"], "test")) > max(order(outcomes["dates_by_time"], "train"))


def test_many_values(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and 'others: ["city"]' in outcome["config"]
    assert len(outcome["facts"]["different"]["categorical"]) == 3 + 50 + 1


@pytest.mark.parametrize("name", ["time_split", "text_dates", "text_numbers"])
def test_a_split_by_time_is_by_time(name: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[name]["codes"] == SPLIT
    if name == "text_numbers":  # shuffled rows, whose key is the number
        ids = {split: {*map(int, ids)} for split, ids in outcomes[name]["facts"]["splits"].items()}
        assert min(ids["test"]) > max(ids["train"] | ids["val"] | ids["calibration"])
    else:
        others = [row for split in ("train", "val", "calibration") for row in order(outcomes[name], split)]
        assert min(order(outcomes[name], "test")) > max(others)


def test_text_dates_unsaid(outcome: dict[str, Any]) -> None:
    words = refusal(outcome, "split")
    assert "data.split.time.format" in words and "99/99/9999" in words


def test_mixed_zones(outcome: dict[str, Any]) -> None:
    assert "has a time zone, row" in refusal(outcome, "split")


def test_group_split(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and "is taken for a group" in outcome["said"]["describe"]
    places = [{row // 3 for row in order(outcome, split)} for split in outcome["facts"]["splits"]]
    assert sum(map(len, places)) == len(set.union(*places)) == 300


def test_rare_class(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    assert outcome["codes"]["split"] == 1
    assert "class 'rare' has 3 rows, and none in " in outcome["said"]["split"]
    assert outcomes["rare_class_allowed"]["codes"] == SPLIT


def test_wide(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and outcome["config"].count("sensor") == 600


def test_constant_column(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT
    for name in ("same", "gone"):
        assert f"column '{name}' is left out" in outcome["said"]["describe"]


def test_big_integers(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    for case in (outcome, outcomes["big_integers_missing"]):
        assert case["codes"] == SPLIT
        assert case["facts"]["ids"] == [str(9_007_199_254_740_993 + 1000 * i) for i in range(300)]
    assert outcomes["big_integers_missing"]["facts"]["missing"].get("c") in (10, None)


def test_headers(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT
    assert {"Länge (mm)", "class", "sub.type [x]"} <= {*outcome["facts"]["missing"]}


def test_quoted_newlines(outcome: dict[str, Any], outcomes: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and "line\nbreak" in outcome["facts"]["values"]["c"]
    assert "(1 times: 222)" in outcomes["quoted_newlines_broken"]["said"]["validate"]


def test_unix_seconds(outcome: dict[str, Any]) -> None:
    assert outcome["codes"] == SPLIT and outcome["facts"]["different"]["numeric"][2] > 400


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("spreadsheet", "save it as CSV"),
        ("json_lines", "read_json(path, lines=True)"),
        ("wrong_label", "--label 'yy' is no column: did you mean y"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(name: str, words: str, outcomes: dict[str, Any]) -> None:
    assert words in refusal(outcomes[name], "describe")

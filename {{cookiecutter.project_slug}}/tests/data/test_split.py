import numpy as np
import pandas as pd
import pytest
from faults import again, lookalikes, store
from harness import Project, module

split = module("data.split")


@pytest.fixture
def keys() -> pd.Series:
    return pd.Series([f"row {i}" for i in range(5000)])


def where(project: Project) -> dict[str, str]:
    """The split of each row."""
    folder = project.settings().paths.splits
    return {
        key: name
        for name in split.NAMES
        for key in pd.read_parquet(folder / f"{name}.parquet")["id"]
    }


def made(project: Project, *overrides: str) -> dict[str, str]:
    assert project.run("split", *overrides) == 0
    return where(project)


@pytest.mark.row("D7")
def test_a_row_keeps_its_split_when_rows_are_added_or_reordered(
    keys: pd.Series, project: Project
) -> None:
    rule = project.settings().data.split
    before = split.assign(keys, rule, seed=1)
    more = pd.concat(
        [pd.Series([f"new {i}" for i in range(999)]), keys.iloc[::-1]], ignore_index=True
    )
    after = split.assign(more, rule, seed=1)
    assert dict(zip(keys, before, strict=True)) == dict(zip(more[999:], after[999:], strict=True))


@pytest.mark.row("D7")
def test_files_are_stable_when_data_is_added(project: Project) -> None:
    """All rows of the files, in the order of the snapshot; chunks change nothing."""
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    store(project, rows.head(len(rows) // 2))
    before = made(project, "data.split.max_label_deviation=1")  # half of a small data set
    store(project, rows.iloc[::-1].reset_index(drop=True))
    after = made(project)
    assert {key: after[key] for key in before} == before and len(after) == len(rows)
    train = pd.read_parquet(project.settings().paths.splits / "train.parquet")
    store(project, rows.iloc[::-1].reset_index(drop=True), group=50)
    assert made(project) == after
    again = pd.read_parquet(project.settings().paths.splits / "train.parquet")
    pd.testing.assert_frame_equal(again, train)
    wanted = rows[rows["id"].isin(train["id"])].iloc[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(train, wanted)


@pytest.mark.row("D7")
def test_shares_are_those_of_the_configuration(keys: pd.Series, project: Project) -> None:
    rule = project.settings().data.split
    found = split.assign(keys, rule, seed=1)
    assert all(
        abs((found == i).mean() - rule.fractions[name]) < 0.03 for i, name in enumerate(split.NAMES)
    )
    assert (found != split.assign(keys, rule, seed=2)).mean() > 0.3


def test_fractions_must_add_up(keys: pd.Series, project: Project) -> None:
    rule = project.settings().data.split
    wrong = rule.model_copy(
        update={"fractions": {"train": 0.9, "val": 0.2, "calibration": 0, "test": 0}}
    )
    with pytest.raises(ValueError, match="add up to 1"):
        split.assign(keys, wrong, seed=1)


@pytest.mark.row("D7")
def test_equal_rows_stay_together_by_content_and_leak_by_id(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    store(project, again(module("data.ingest").read(project.settings()), 100))
    assert (
        project.run("split", "data.split.key=id") == 1
        and not project.settings().paths.splits.exists()
    )
    assert project.run("split") == 0
    assert project.run("split", "data.split.key=id") == 1  # the last good splits stay
    assert project.settings().paths.splits.exists()


@pytest.mark.row("D6", "D7")
def test_near_duplicates_stay_together_by_near(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    store(project, lookalikes(rows, project.settings().data))
    assert project.run("split") == 1
    report = module("provenance").read_json(project.settings().paths.reports / "splits.json")
    for test, train in report["near_duplicates"]["test_and_train_rows"]:
        assert abs(test - train) == len(
            rows
        )  # row numbers of the snapshot: a row and its lookalike
    assert made(project, "data.split.key=near")


@pytest.mark.row("D6", "D7")
def test_rows_without_a_label_are_in_no_split(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    known = made(project)
    store(project, rows.assign(label=rows["label"].where(rows.index % 50 != 0)))
    assert made(project) == {key: known[key] for key in rows["id"][rows.index % 50 != 0]}


@pytest.mark.row("D7")
def test_a_group_stays_together(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    group = dict(zip(rows["id"], (f"group {i % 97}" for i in range(len(rows))), strict=True))
    store(project, rows.assign(group=rows["id"].map(group)))
    found = made(project, "data.split.key=group", "data.split.max_label_deviation=1")
    assert pd.Series(found).groupby(group).nunique().max() == 1 and set(found.values()) == set(
        split.NAMES
    )


@pytest.mark.row("D7")
@pytest.mark.parametrize("as_date", [False, True])
def test_by_time_the_newest_rows_are_the_test_split(as_date: bool, project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    days = pd.Series(np.random.default_rng(0).permutation(len(rows)))
    time = pd.Timestamp("2024-01-01") + pd.to_timedelta(days, unit="D") if as_date else days
    store(project, rows.assign(time=time))
    loose = ["data.split.max_label_deviation=1", "data.split.max_near_duplicates=1"]
    loose.append(f"data.allow_absent={project.settings().data.labels}")
    found = made(project, "data.split.time={column: time}", *loose)
    order = days.to_numpy()[rows["id"].map(found) == "test"]
    share = project.settings().data.split.fractions["test"]
    assert order.min() > days.to_numpy()[rows["id"].map(found) != "test"].max()
    assert len(order) == pytest.approx(share * len(rows), abs=2)
    date = "'2024-02-20'" if as_date else "50"
    fixed = made(project, "data.split.time={" + f"column: time, test_from: {date}" + "}", *loose)
    assert {key for key, name in fixed.items() if name == "test"} == {*rows["id"][days >= 50]}


@pytest.mark.row("D7")
@pytest.mark.parametrize(
    ("texts", "rule", "order"),
    [
        (["31/12/2022", "01/02/2023"], {"format": "%d/%m/%Y"}, [0, 1]),
        (["999", "1000"], {}, [0, 1]),
        (["2023-01-02", "2022-12-31T23:00"], {}, [1, 0]),
        (["2024-01-01T10:00+05:00", "2024-01-01T09:00+01:00"], {}, [0, 1]),
    ],
)
def test_text_is_ordered_as_time(texts: list[str], rule: dict[str, str], order: list[int]) -> None:
    time = module("settings").Time(column="day", **rule)
    assert split.times(pd.Series(texts), time).argsort().tolist() == order


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["2024-01-01", "31/12/2023"], "row 1 .*data.split.time.format"),
        (["soon", "later"], "row 0 "),
        (["2024-01-01T10:00", "2024-01-01T09:00Z"], "row 1 has a time zone, row 0 none"),
    ],
)
def test_text_that_is_no_time_is_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split.times(pd.Series(texts), module("settings").Time(column="day"))


@pytest.mark.row("D7")
def test_feedback_has_no_group_and_no_time(project: Project) -> None:
    assert (project.run("ingest"), project.run("validate")) == (0, 0)
    rows = module("data.ingest").read(project.settings())
    known = rows.index < len(rows) - 20  # the others are feedback
    store(
        project,
        rows.assign(
            day=pd.Series(rows.index).where(known),
            group=pd.Series(rows.index % 90).astype(str).where(known),
        ),
    )
    words = ["data.split.time={column: day}", "data.split.key=group"]
    found = made(
        project, *words, "data.split.max_label_deviation=1", "data.split.max_near_duplicates=1"
    )
    assert {found[key] for key in rows["id"][~known]} == {"train", "val", "calibration"}


def test_label_deviation_sees_a_lopsided_split(project: Project) -> None:
    data = project.settings().data
    deviation = module("modeling.kinds").of(data.kind).label_deviation
    labels = pd.Series([*data.labels[:2] * 50] or np.linspace(0, 1, 100))
    assert deviation(labels[labels == labels.max()], labels) > 0.4
    assert deviation(labels.iloc[:50], labels.iloc[:50]) == 0
    assert deviation(labels.head(0), labels) > 0.4

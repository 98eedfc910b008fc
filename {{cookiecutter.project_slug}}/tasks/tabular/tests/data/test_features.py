from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from harness import ROOT, module
from pydantic import ValidationError

features = module("task.features")
OF = features.Features(
    numeric={"age": (0, 120), "weight": (0.1, 300)},
    categorical={"sex": ["f", "m"], "town": ["A", "B", "C"]},
    optional=["weight", "town"],
)
ROWS = {"age": [30, 40.5], "weight": [70.3, None], "sex": ["m", "f"], "town": [None, "C"]}


def test_numbers_gaps_and_categories_lie_where_the_network_expects_them() -> None:
    inputs = features.encode(ROWS, OF)
    assert {name: (x.dtype, x.shape) for name, x in inputs.items()} == {
        "numeric": (np.float32, (2, 2)),
        "missing": (np.float32, (2, 2)),
        "categorical": (np.float32, (2, 5)),
    }
    assert inputs["numeric"].tolist() == [[-30, np.float32(70.3 - 150.05)], [-19.5, 0]]
    assert inputs["missing"].tolist() == [[0, 0], [0, 1]]
    assert inputs["categorical"].tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 1]]


def test_a_table_of_one_sort_of_columns_has_no_other_inputs() -> None:
    assert set(features.encode({"a": [1]}, features.Features(numeric={"a": (0, 1)}))) == {
        "numeric",
        "missing",
    }
    assert set(features.encode({"a": ["x"]}, features.Features(categorical={"a": ["x"]}))) == {
        "categorical"
    }


@pytest.mark.parametrize("name", ["bundled", "breast_cancer"])
def test_rows_and_requests_give_the_same_inputs(name: str) -> None:
    data = yaml.safe_load(
        module("pipeline").compose([] if name == "bundled" else [f"data={name}"], ROOT / "configs")
    )
    source, of = data["data"]["source"], features.Features.model_validate(data["data"]["features"])
    rows = module("task.source").bundled(source["name"], source["missing"])
    direct = features.encode(rows, of)
    items = [features.row_to_instance(row, of) for row in rows.to_dict("records")]
    for way in (items, features.inputs_to_instances(direct, of)):
        instances = [features.Instance.model_validate(item) for item in way]
        for instance in instances:
            features.check_instance(instance, of)
        sent = [features.instance_to_row(instance) for instance in instances]
        again = features.encode({n: [row[n] for row in sent] for n in of.names}, of)
        assert all(np.array_equal(direct[n], again[n]) for n in direct)


def test_a_number_at_the_end_of_its_range_comes_back_as_it_was_written() -> None:
    of = features.Features(numeric={"a": (0.1, 0.3)})  # 0.3 in float32 is above 0.3
    assert features.inputs_to_instances(features.encode({"a": [0.1, 0.3]}, of), of) == [
        {"a": 0.1},
        {"a": 0.3},
    ]


def test_large_numbers_keep_their_differences() -> None:
    seconds = [1_700_000_000 + i for i in range(600)]
    of = features.Features(numeric={"at": (1_700_000_000, 1_700_000_600), "b": (0, 1)})
    columns = {"at": seconds, "b": [0.5] * 600}
    inputs = features.encode(columns, of)
    assert len({*inputs["numeric"][:, 0].tolist()}) == 600
    items = features.inputs_to_instances(inputs, of)
    assert [item["at"] for item in items] == pytest.approx(seconds, abs=1e-3)
    assert features.tensor_types(of) == {"numeric": "FP64"} and features.tensor_types(OF) == {}
    raw = np.array([*columns.values()], float).T
    sent = {"numeric": raw, "missing": np.zeros_like(raw)}
    again = features.from_tensors(sent, set(), of)
    assert all(np.array_equal(again[name], inputs[name]) for name in inputs)
    with pytest.raises(ValueError, match="send FP64"):
        features.from_tensors(sent, {"numeric"}, of)
    sent["numeric"] = sent["numeric"][:1]  # 1,700,000,000 is a float32
    features.from_tensors({n: v[:1] for n, v in sent.items()}, {"numeric"}, of)


def test_values_that_are_not_listed_share_a_bucket() -> None:
    of = features.Features(categorical={"town": ["A", "B"], "sex": ["f"]}, others=["town"])
    inputs = features.encode({"town": ["B", "Z", None, "new"], "sex": ["f"] * 4}, of)
    assert inputs["categorical"].tolist() == [
        [0, 1, 0, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 1],
        [0, 0, 1, 1],
    ]
    features.check_instance(features.Instance.model_validate({"town": "Z", "sex": "f"}), of)
    assert features.signals(inputs, of)["town: other values"].tolist() == [0, 1, 0, 1]
    items = features.inputs_to_instances(inputs, of)
    again = features.encode({n: [item[n] for item in items] for n in of.names}, of)
    assert np.array_equal(again["categorical"], inputs["categorical"])


CYCLES = ["year", "month cycle", "weekday", "hour cycle"]


@pytest.mark.parametrize(
    ("rule", "text", "numbers"),
    [
        ({"parts": ["year", "month", "weekday", "hour"]}, "2024-12-31T23:15", [2024, 12, 1, 23]),
        ({"parts": ["month cycle"]}, "2024-01-09", [1, 0]),
        ({"parts": ["hour"], "format": "%d/%m/%Y %H:%M"}, "31/12/2023 07:05", [7]),
        ({"parts": ["hour"], "zone": "Europe/Berlin"}, "2024-07-01T22:30:00Z", [0]),
        ({"parts": ["weekday"], "zone": "UTC"}, "2024-07-01T01:00:00+03:00", [6]),
    ],
)
def test_parts_of_dates_are_numbers(rule: dict[str, Any], text: str, numbers: list[float]) -> None:
    dates = module("task.dates").Dates(years=(2020, 2025), **rule)
    assert dates.encode(text) == pytest.approx(numbers)
    assert dates.encode(dates.decode(dates.encode(text))) == pytest.approx(dates.encode(text))


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_go_from_row_to_input_and_back(zone: str | None) -> None:
    rule = {"parts": CYCLES, "years": (2020, 2025), "zone": zone}
    of = features.Features(numeric={"a": (0, 1)}, dates={"when": rule}, optional=["when"])
    moments = pd.date_range("2020-03-05", "2025-11-07", periods=400, tz=zone)
    texts = [moment.isoformat(timespec="minutes") for moment in moments]
    inputs = features.encode({"a": [0.5] * 401, "when": [*texts, None]}, of)
    assert inputs["numeric"].shape == (401, 7) and inputs["missing"][-1].tolist() == [0] + [1] * 6
    items = features.inputs_to_instances(inputs, of)
    for item in items:
        features.check_instance(features.Instance.model_validate(item), of)
    again = features.encode({n: [item[n] for item in items] for n in of.names}, of)
    assert np.allclose(again["numeric"], inputs["numeric"], atol=1e-6)


def test_a_wrong_date_is_refused_with_the_rule() -> None:
    local = features.Features(dates={"when": {"parts": ["hour"], "years": (2020, 2025)}})
    zoned = features.Features(
        dates={"when": {"parts": ["hour"], "years": (2020, 2025), "zone": "UTC"}}
    )
    cases = [
        (local, "31/12/2023", "when: must be a date as text, ISO 8601"),
        (local, 5.0, "when: must be a date"),
        (local, "2019-01-01", "when: must be a date from 2020 to 2025"),
        (local, "2024-01-01T00:00Z", "when: time zone: must have none"),
        (zoned, "2024-01-01T00:00", "when: time zone: must have an offset"),
    ]
    for of, value, message in cases:
        with pytest.raises(ValueError, match=message):
            features.check_instance(features.Instance.model_validate({"when": value}), of)


def test_a_column_that_is_left_out_is_missing_where_that_is_allowed() -> None:
    inputs = features.encode({"age": [1.0], "sex": ["f"]}, OF)
    assert inputs["missing"].tolist() == [[0, 1]] and inputs["categorical"].tolist() == [
        [1, 0, 0, 0, 0]
    ]
    with pytest.raises(KeyError, match="sex"):
        features.encode({"age": [1.0]}, OF)
    with pytest.raises(ValueError, match="age: must be numbers"):
        features.encode({"age": ["1"], "sex": ["f"]}, OF)


GOOD = {"age": 30, "weight": 70.5, "sex": "m", "town": "A"}


@pytest.mark.row("S7")
def test_a_value_that_the_columns_forbid_is_refused_with_field_and_rule() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"age": 121}, "age: must be a number from 0 to 120"),
        ({"age": -0.1}, "age: must be a number from 0 to 120"),
        ({"age": "30"}, "age: must be a number"),
        ({"age": None}, "age: must not be missing"),
        ({"sex": 1}, "sex: must be one of the texts f, m"),
        ({"town": "D"}, "town: must be one of the texts A, B, C"),
        ({"colour": 1}, "colour: unknown column"),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=f"^{message}"):
            features.check_instance(features.Instance.model_validate(GOOD | change), OF)
    for name in OF.optional:
        item = {k: v for k, v in GOOD.items() if k != name}
        features.check_instance(features.Instance.model_validate(item), OF)


@pytest.mark.row("S7")
def test_what_no_column_can_hold_is_refused_with_the_field() -> None:
    values: list[Any] = [True, [1], {}, float("nan"), float("inf"), 10**400, "x" * 201]
    for value in values:
        with pytest.raises(ValidationError) as error:
            features.Instance.model_validate({"age": value})
        assert error.value.errors()[0]["loc"][0] == "age" and error.value.error_count() == 1
    items: list[Any] = [{}, [], None, 5, "age", {"x" * 201: 1}]
    for item in items:
        with pytest.raises(ValidationError):
            features.Instance.model_validate(item)


def test_columns_that_contradict_each_other_are_refused() -> None:
    number = {"a": (0, 1)}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"numeric": {"a": (1, 1)}}, "lowest below a highest"),
        ({"categorical": {"a": ["x", "x"]}}, "values that differ"),
        ({"numeric": number, "categorical": {"a": ["x"]}}, "names of their own"),
        ({"numeric": {"label": (0, 1)}}, "names of their own"),
        ({}, "there must be one"),
        ({"numeric": number, "optional": ["b"]}, "do not exist"),
        ({"numeric": number, "examples": [{"a": 2}]}, "a: must be a number from 0 to 1"),
    ]
    for change, message in cases:
        with pytest.raises(ValidationError, match=message):
            features.Features(**change)


def test_the_schema_of_a_request_says_what_the_check_demands() -> None:
    schema = features.instance_schema(OF)
    assert schema["required"] == ["age", "sex"] and schema["additionalProperties"] is False
    assert schema["properties"]["age"] == {"type": "number", "minimum": 0, "maximum": 120}
    assert {"type": "string", "enum": ["A", "B", "C"]} in schema["properties"]["town"]["anyOf"]


@pytest.mark.row("O4")
def test_drift_signals_are_the_columns_and_the_gaps() -> None:
    found = features.signals(features.encode(ROWS, OF), OF)
    assert {name: values.tolist() for name, values in found.items()} == {
        "age": [30, 40.5], "weight": [70.3, 0.1], "missing values": [0, 1],
        "sex": [1, 0], "town": [3, 2],
    }  # fmt: skip


@pytest.mark.row("D2")
def test_augmentation_varies_what_it_may_and_keeps_gaps_and_one_hot_vectors() -> None:
    torch.manual_seed(1)
    columns = {
        "age": [40.0, 60.0] * 500,
        "weight": [None] * 500 + [70.0] * 500,
        "sex": ["m"] * 1000,
        "town": [None] * 1000,
    }
    inputs = {
        name: torch.from_numpy(values) for name, values in features.encode(columns, OF).items()
    }
    augment = module("task.augment").Disturb(
        noise=0.5, missing=0.1, category=0.5, features=OF.model_dump()
    )
    changed = augment(inputs)
    moved = changed["numeric"][:, 0] - inputs["numeric"][:, 0]
    assert moved.std() == pytest.approx(5, rel=0.1) and not changed["missing"][:, 0].any()
    gaps = changed["missing"][:, 1] > 0
    assert (
        gaps[:500].all()
        and 0.05 < gaps[500:].float().mean() < 0.15
        and not changed["numeric"][gaps, 1].any()
    )
    blocks = changed["categorical"].split([2, 3], dim=1)
    assert (
        torch.equal(blocks[0].sum(dim=1), torch.ones(1000)) and 0.2 < blocks[0][:, 0].mean() < 0.3
    )


@pytest.mark.row("D5")
def test_near_duplicates_share_a_key_and_others_do_not() -> None:
    data = (
        module("settings")
        .parse(yaml.safe_load(module("pipeline").compose([], ROOT / "configs")))
        .data
    )
    rows = module("task.source").bundled(data.name, 0.02)
    keys, of = (
        module("task.schema").near_key(rows, data),
        features.Features.model_validate(data.features),
    )
    assert keys.is_unique
    lowest, highest = (
        pd.Series(dict(zip(of.numeric, ends, strict=True)))
        for ends in zip(*of.numeric.values(), strict=True)
    )
    width = highest - lowest
    middle = ((rows[[*of.numeric]] - lowest) / width).round(
        2
    ) * width + lowest  # middles of the cells
    same, other = rows.assign(**(middle + 0.004 * width)), rows.assign(**(middle + 0.006 * width))
    assert keys.eq(module("task.schema").near_key(same, data)).all()
    assert keys.ne(module("task.schema").near_key(other, data)).all()


@pytest.mark.row("D2")
def test_the_gaps_are_the_same_every_time_and_only_in_laboratory_values() -> None:
    bundled = module("task.source").bundled
    one, other, whole = (
        bundled("diabetes", 0.02),
        bundled("diabetes", 0.02),
        bundled("diabetes", 0.0),
    )
    assert one.equals(other) and not whole.isna().any().any()
    gaps = one.drop(columns=["id", "label"]).isna()
    assert 0.01 < gaps[["tc", "ldl", "hdl", "tch", "ltg", "glu"]].to_numpy().mean() < 0.03
    assert not gaps[["age", "sex", "bmi", "bp"]].any().any()
    with pytest.raises(ValueError, match="choose another source"):
        bundled("mine", 0.0)

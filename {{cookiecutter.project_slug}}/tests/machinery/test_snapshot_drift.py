import math

import numpy as np
import pandas as pd
import pytest
from faults import store, upper_half
from harness import Project, module

checks = module("data.checks")
LOOSE = ["data.checks.max_missing=1", "data.checks.max_duplicates=1"]


def sample(rng: np.random.Generator, n: int) -> pd.DataFrame:
    texts = rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])
    return pd.DataFrame(
        {"x": rng.normal(size=n), "count": rng.poisson(2, n), "kind": texts, "flag": texts == "a"}
    )


def changed(before: pd.DataFrame, now: pd.DataFrame, limit: float = 0.25) -> dict[str, str]:
    found = checks.drift(checks.profile(before), now, limit)
    return {f["column"]: f["detail"] for f in found if not f["ok"]}


@pytest.mark.row("D6")
def test_the_index_is_the_published_formula() -> None:
    before, now = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    wanted = -0.25 * math.log(0.5) + 0.25 * math.log(1.5)
    assert checks.psi(before, 10**9, now, 10**9) == pytest.approx(wanted, rel=1e-6)
    assert checks.psi(before, 100, before, 700) == pytest.approx(0, abs=1e-12)


@pytest.mark.row("D6")
def test_unchanged_data_raise_no_alarm_at_any_size() -> None:
    rng = np.random.default_rng(1)
    alarms = [
        bool(changed(sample(rng, n), sample(rng, n), limit=0.0))
        for n in (40, 300, 3000)
        for _ in range(100)
    ]
    assert sum(alarms) <= 4  # without a limit, chance alone decides: 0.1 % of 300


@pytest.mark.row("D6")
def test_what_changed_is_named() -> None:
    rng = np.random.default_rng(2)
    before = sample(rng, 2000)
    now = sample(rng, 2000)
    assert [*changed(before, now.assign(x=now["x"] + 1))] == ["x"]
    assert "(missing)" in changed(before, now.assign(x=now["x"].where(now.index > 500)))["x"]
    assert (
        "(other)"
        in changed(before, now.assign(kind=now["kind"].where(now.index > 500, "never seen")))[
            "kind"
        ]
    )
    assert [*changed(before, now.assign(count=now["count"] * 0))] == ["count"]
    assert (
        changed(before, now.assign(x=now["x"] + 0.1)) == {}
    )  # a small change, which 2,000 rows show clearly


@pytest.mark.row("D6")
def test_keys_and_free_text_are_no_columns_to_compare() -> None:
    rows = pd.DataFrame({"text": [f"note {i}" for i in range(500)], "x": np.arange(500.0)})
    assert [*checks.profile(rows)["columns"]] == ["x"]


@pytest.mark.row("D6")
def test_a_drifted_snapshot_stays_refused_until_it_is_accepted(project: Project) -> None:
    project.run("ingest")
    rows = module("data.ingest").read(project.settings())
    assert project.run("validate") == 0 and project.run("validate") == 0
    drifted = upper_half(rows, project.settings().data)
    store(project, drifted)
    assert project.run("validate") == 1 and project.run("validate") == 1
    assert project.run("validate", "data.checks.max_drift=1000", *LOOSE) == 0
    assert project.run("validate", *LOOSE) == 1  # it is still compared with the one before
    (project.settings().paths.reports / "profile.json").unlink()
    assert project.run("validate", *LOOSE) == 0
    store(project, rows)
    assert project.run("validate", "data.name=other") == 0  # another data set is not compared


@pytest.mark.row("D6")
def test_growing_by_labelled_feedback_is_no_drift(project: Project) -> None:
    project.run("ingest")
    assert project.run("validate") == 0
    rows = module("data.ingest").read(project.settings())
    extreme = upper_half(rows, project.settings().data).head(len(rows) // 3).drop(columns="content")
    number = pd.RangeIndex(len(extreme))
    numeric = [c for c in extreme if c != "label" and pd.api.types.is_numeric_dtype(extreme[c])]
    extreme = extreme.assign(
        id=[f"feedback {i}" for i in number], **{c: extreme[c] * 1.0001 for c in numeric}
    )
    extreme.to_parquet(project.settings().paths.feedback / "one.parquet", index=False)
    project.run("ingest")
    assert project.run("validate", *LOOSE) == 0
    drift = module("provenance").read_json(project.settings().paths.reports / "validation.json")[
        "drift"
    ]
    assert drift and all(d["index"] < 0.01 for d in drift)

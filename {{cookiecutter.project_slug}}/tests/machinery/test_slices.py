import numpy as np
import pytest
import yaml
from harness import ROOT, module
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

slices = module("evaluation.slices")
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluation"]
LIMITS = module("settings").Slices.model_validate(SHIPPED["slices"])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.row("M12")
def test_the_worst_slice_and_its_interval() -> None:
    losses = np.zeros(200)
    losses[:30] = np.arange(30) % 2
    masks = {"bad": np.arange(200) < 30, "good": np.arange(200) >= 30, "tiny": np.arange(200) < 3}
    found = slices.judge(losses, masks, {}, None, LIMITS)
    rows = found.details["slices"]
    assert [r["slice"] for r in rows] == [
        "bad",
        "good",
    ] and found.outcome == "fail"  # tiny has too few rows
    wanted = stats.binomtest(15, 30).proportion_ci(1 - LIMITS.alpha / 2, method="wilson")
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((wanted.low, wanted.high))
    assert rows[0]["declared"] and (rows[0]["loss"], rows[0]["score"]) == (0.5, 0.5)
    assert slices.judge(np.zeros(200), masks, {}, None, LIMITS).outcome == "pass"
    assert slices.judge(losses, {"tiny": masks["tiny"]}, {}, None, LIMITS).outcome == "cannot tell"
    assert slices.judge(losses, {}, {}, None, LIMITS).outcome == "not applicable"


@pytest.mark.row("M12")
def test_the_interval_of_squared_normal_errors_is_that_of_a_variance(
    rng: np.random.Generator,
) -> None:
    n, held = 40, 0
    for _ in range(1000):
        low, high = slices.interval(rng.normal(size=n) ** 2, 0.05)
        held += low <= 1 <= high
    assert held / 1000 == pytest.approx(0.95, abs=0.025)


@pytest.mark.row("M12")
def test_conditions_split_columns_of_every_type() -> None:
    numbers = np.append(np.arange(100.0), np.nan)
    found = slices.conditions(numbers)
    assert [int(m.sum()) for m in found.values()] == [25, 25, 25, 25, 1] and "missing" in found
    assert sum(found.values()).tolist() == [1] * 101
    assert set(slices.conditions(np.array(["a", "b", "a"]))) == {"= a", "= b"}
    assert slices.conditions(np.array([0, 1, 1]))["= 1"].tolist() == [False, True, True]


@pytest.mark.row("M12")
def test_the_search_corrects_for_looking_at_many(rng: np.random.Generator) -> None:
    """Where slices do not differ, hardly more than alpha of the searches find one, for rare and for
    skewed losses.
    """
    columns = {f"c{i}": rng.normal(size=200) for i in range(3)} | {
        "t": np.array(["a", "b"])[rng.integers(0, 2, 200)]
    }
    masks = slices.candidates(columns, rng.normal(size=(200, 4)), LIMITS.min_size)
    assert len(masks) > 20
    for losses in ((rng.random((60, 200)) < 0.05).astype(float), rng.normal(size=(60, 200)) ** 2):
        alarms = [(slices.least_gaps(row, masks, LIMITS.alpha) > 0).any() for row in losses]
        assert np.mean(alarms) <= 0.08


@pytest.mark.row("M12")
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_the_search_finds_a_pair_of_conditions_that_nobody_declared(
    kind: str, rng: np.random.Generator
) -> None:
    n = 540
    sex, age = np.array(["f", "m"])[rng.integers(0, 2, n)], rng.uniform(20, 80, n)
    hit = (sex == "f") & (age > 65)
    losses = rng.normal(size=n) ** 2 * np.where(hit, 6, 1) / 2
    if kind == "classes":
        losses = (rng.random(n) < np.where(hit, 0.6, 0.02)).astype(float)
    found = slices.judge(losses, {"f": sex == "f"}, {"sex": sex, "age": age}, None, LIMITS)
    top = found.details["slices"][0]
    assert found.outcome == "fail" and "sex = f" in top["slice"] and "age from" in top["slice"]
    assert not top["declared"] and found.number > LIMITS.max_gap
    shuffled = slices.judge(
        rng.permutation(losses), {"f": sex == "f"}, {"sex": sex, "age": age}, None, LIMITS
    )
    assert shuffled.outcome == "pass"


@pytest.mark.row("M12")
def test_the_search_finds_a_cluster_of_embeddings(rng: np.random.Generator) -> None:
    group = rng.integers(0, 5, 500)
    embedding = 6 * np.eye(5)[group] + rng.normal(size=(500, 5))
    losses = (rng.random(500) < np.where(group == 3, 0.5, 0.02)).astype(float)
    found = slices.judge(losses, {}, {}, embedding.astype(np.float32), LIMITS)
    assert found.outcome == "fail" and "cluster" in found.details["slices"][0]["slice"]


@pytest.mark.row("M12")
def test_a_slice_left_out_of_training_is_refused(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1400, 3))
    rare = x[:, 0] > 1
    label = ((x[:, 1] + x[:, 2] > 0) ^ rare).astype(int)  # another rule holds there
    train, test = np.arange(1400) < 1000, np.arange(1400) >= 1000
    columns = {f"c{i}": x[test, i] for i in range(3)}
    for seen, outcome in ((train, "pass"), (train & ~rare, "fail")):
        model = KNeighborsClassifier(5).fit(x[seen], label[seen])
        losses = (model.predict(x[test]) != label[test]).astype(float)
        assert slices.judge(losses, {}, columns, None, LIMITS).outcome == outcome


@pytest.mark.row("M12")
def test_many_rows_and_columns_take_seconds(rng: np.random.Generator) -> None:
    n = 60_000
    columns = {f"c{i}": rng.normal(size=n) for i in range(12)}
    losses = (rng.random(n) < np.where(columns["c0"] > 1, 0.3, 0.05)).astype(float)
    found = slices.judge(losses, {"high": columns["c0"] > 1}, columns, None, LIMITS)
    assert found.outcome == "fail" and found.details["searched"] <= slices.MAX_SLICES


@pytest.mark.row("M12")
def test_the_same_rows_are_listed_once_and_only_what_is_worse_is_called_worse() -> None:
    losses, rows = np.zeros(200), np.arange(200)
    losses[100:140] = 1
    masks = {"first": rows < 100, "same": rows < 100, "all": rows >= 0}
    columns = {"group": np.where(rows < 100, "a", "b")}
    found = slices.judge(losses, masks, columns, None, LIMITS)
    assert [row["slice"] for row in found.details["slices"]] == ["group = b", "first"]
    better = slices.judge(losses, {"first": rows < 100}, {}, None, LIMITS)
    assert "first" not in better.why and better.outcome == "pass" and better.number == 0

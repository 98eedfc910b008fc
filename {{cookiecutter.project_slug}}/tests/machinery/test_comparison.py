import numpy as np
import pytest
import yaml
from harness import ROOT, module
from kinds import KINDS, having
from scipy import stats

comparison = module("evaluation.comparison")
SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluation"]
LIMITS = module("settings").Comparison.model_validate(SHIPPED["comparison"])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.row("M6")
def test_mcnemar_is_a_coin_toss_over_the_rows_on_which_one_model_errs() -> None:
    a, b = np.zeros(100), np.zeros(100)
    a[:2], b[2:14] = 1, 1
    found = comparison.paired(a, b, "binary", 0.05)
    assert (
        found.p
        == pytest.approx(2 * stats.binom.cdf(2, 14, 0.5))
        == pytest.approx(0.01294, abs=1e-5)
    )
    assert found.difference == pytest.approx(-0.1) and found.low < -0.1 < found.high < 0
    assert found.effect == pytest.approx(2 / 14 - 0.5) and found.answer(0.05) == "better"
    assert comparison.paired(b, a, "binary", 0.05).answer(0.05) == "worse"
    assert comparison.paired(a, a, "binary", 0.05).p == 1.0


@pytest.mark.row("M6")
def test_the_interval_of_matched_proportions_has_its_published_value() -> None:
    """Agresti 2013, table 11.1: of 1,600 voters 150 approve in the first survey alone, and 86 in
    the second alone.
    """
    a, b = np.zeros(1600), np.zeros(1600)
    a[:150], b[150:236] = 1, 1
    found = comparison.paired(a, b, "binary", 0.05)
    assert found.difference == pytest.approx(0.04)
    assert (found.low, found.high) == pytest.approx((0.02, 0.06), abs=2e-3)


@pytest.mark.row("M6")
def test_resamples_are_corrected_for_the_rows_that_they_share(rng: np.random.Generator) -> None:
    differences = rng.normal(0.02, 0.05, 15)
    found = comparison.resampled(differences, 90, 10, 0.05)
    t = differences.mean() / np.sqrt((1 / 15 + 10 / 90) * differences.var(ddof=1))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 14))
    assert (found.low <= 0 <= found.high) == (found.p >= 0.05)
    naive = comparison.seeds(differences, 0.05)
    assert naive.p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue) and naive.p < found.p
    with pytest.raises(ValueError, match="at least 2 differences"):
        comparison.seeds(differences[:1], 0.05)


@pytest.mark.row("M6")
def test_power_has_its_known_values_and_grows_with_rows_and_difference() -> None:
    # McNemar: the sum over all tables of 40 rows.
    tables = [(m, k) for m in range(41) for k in range(m + 1)]
    seen = sum(
        stats.binom.pmf(m, 40, 0.4) * stats.binom.pmf(k, m, 0.75)
        for m, k in tables
        if k > m / 2 and stats.binomtest(k, m).pvalue < 0.05
    )
    assert comparison.power("binary", 40, 0.2, 0.4, 0.05) == pytest.approx(seen)
    for kind in {"binary", "regression"} & {*KINDS}:
        rising = [comparison.power(kind, n, 0.02, 0.05, 0.05) for n in (50, 200, 2000)]
        assert rising == sorted(rising) and rising[-1] > 0.9
        assert comparison.power(kind, 200, 0.03, 0.05, 0.05) > rising[1]


def found(low: float, high: float, p: float) -> object:
    return comparison.Paired("t", 100, (low + high) / 2, low, high, p, 0.0, 0.05)


@pytest.mark.row("M6", "P3")
@pytest.mark.parametrize(
    ("low", "high", "p", "answer"),
    [
        (-0.03, 0.01, 0.4, "pass"),
        (-0.01, 0.03, 0.4, "cannot tell"),
        (0.001, 0.01, 0.01, "fail"),  # worse by less than the margin, but surely
        (0.03, 0.05, 1e-4, "fail"),
        (-0.05, -0.01, 0.01, "pass"),
    ],
)
def test_a_candidate_may_lose_a_margin_but_not_for_sure(
    low: float, high: float, p: float, answer: str
) -> None:
    assert comparison.non_inferior(found(low, high, p), 0.02) == answer


@pytest.mark.row("M2", "M6")
def test_the_cheaper_candidate_goes_on_where_no_test_can_tell() -> None:
    good, bad = np.zeros(200), (np.arange(200) % 4 == 0).astype(float)
    operations = {"network": 1000, "classical": 10}
    for network, classical, chosen in (
        (good, bad, "network"),
        (good, good, "classical"),
        (bad, good, "classical"),
    ):
        name, why = comparison.select(
            {"network": network, "classical": classical}, operations, "multiclass", 0.05
        )
        assert name == chosen and f"{chosen} goes to the gate" in why


@pytest.mark.row("M6")
@having("binary", "regression")
def test_the_candidate_must_beat_the_baselines_and_not_be_worse_than_another(
    kind: str, rng: np.random.Generator
) -> None:
    noise = rng.normal(size=(3, 400)) ** 2
    mine = (noise[0] > 2).astype(float) if kind == "binary" else noise[0]
    losses = {
        "network": mine,
        "classical": np.roll(mine, 1),
        "constant": mine * 0.5 + 1,
        "heuristic": mine + 0.5,
    }
    if kind == "binary":
        losses |= {
            "constant": (noise[1] > 0.4).astype(float),
            "heuristic": (noise[2] > 0.4).astype(float),
        }

    def outcome(**other: np.ndarray) -> str:
        return str(comparison.judge(losses | other, "network", kind, LIMITS).outcome)

    assert outcome() == "pass"
    assert outcome(heuristic=np.roll(mine, 2)) == "cannot tell"
    assert outcome(heuristic=np.zeros(400)) == outcome(classical=np.zeros(400)) == "fail"

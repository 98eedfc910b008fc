"""The trained model's behaviour, on the bundle that the last `make pipeline` made."""

from typing import Any

import numpy as np
import pytest
from harness import ROOT, module

from_root = ROOT / "artifacts" / "bundle" / "manifest.json"
pytestmark = pytest.mark.skipif(
    not from_root.is_file(), reason="no bundle yet: run `make pipeline` first"
)


@pytest.fixture(scope="module")
def bundle() -> Any:
    return module("packaging.bundle").Bundle.load(from_root.parent)


@pytest.fixture(scope="module")
def table(bundle: Any) -> Any:
    if bundle.card.task not in ("diabetes", "breast_cancer"):
        pytest.skip("the bundle is of other data")
    return module("task.source").bundled(bundle.card.task, 0.02)


def answered(bundle: Any, rows: Any) -> Any:
    """Predicted values, or probabilities of the last label, [n]."""
    features = module("task.features")
    inputs = features.encode(rows, features.Features.model_validate(bundle.card.features))
    answers = bundle.decide(bundle.infer(inputs)["raw"])
    return answers.value if bundle.card.kind == "regression" else answers.probabilities[:, -1]


def test_it_beats_a_constant_by_far(bundle: Any, table: Any) -> None:
    found = answered(bundle, table)
    truth = (
        table["label"]
        if bundle.card.kind == "regression"
        else table["label"] == bundle.card.labels[-1]
    )
    assert np.corrcoef(found, truth.astype(float))[0, 1] > 0.6


def test_a_row_of_extremes_gets_a_finite_answer(bundle: Any, table: Any) -> None:
    for end in (0, 1):
        numbers = {name: [limits[end]] for name, limits in bundle.card.features["numeric"].items()}
        first = {name: [values[0]] for name, values in bundle.card.features["categorical"].items()}
        assert np.isfinite(answered(bundle, numbers | first)).all()


def test_one_missing_value_moves_the_answer_little(bundle: Any, table: Any) -> None:
    whole = table.dropna()
    before = answered(bundle, whole)
    for name in bundle.card.features["optional"]:
        assert (
            np.abs(answered(bundle, whole.assign(**{name: np.nan})) - before).mean()
            < 0.5 * before.std()
        )

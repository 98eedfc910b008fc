"""The trained model's behaviour, on the bundle that the last `make pipeline` made."""

import numpy as np
import pytest
from harness import ROOT, module

from_root = ROOT / "artifacts" / "bundle" / "manifest.json"
pytestmark = pytest.mark.skipif(
    not from_root.is_file(), reason="no bundle yet: run `make pipeline` first"
)


@pytest.fixture(scope="module")
def bundle():  # type: ignore[no-untyped-def]
    return module("packaging.bundle").Bundle.load(from_root.parent)


@pytest.fixture(scope="module")
def bundled(bundle):  # type: ignore[no-untyped-def]
    rows = module("task.source").bundled()
    features = module("task.features")
    return features.encode(rows, features.Features.model_validate(bundle.card.features)), rows[
        "label"
    ].astype(int).to_numpy()


def test_it_reads_nearly_every_digit(bundle, bundled) -> None:  # type: ignore[no-untyped-def]
    inputs, label = bundled
    assert (bundle.decide(bundle.infer(inputs)["raw"]).label == label).mean() > 0.97


def test_ink_in_disorder_gets_less_sure_answers(bundle, bundled) -> None:  # type: ignore[no-untyped-def]
    pictures = bundled[0]["image"]
    pixels = np.random.default_rng(0).permuted(pictures.reshape(len(pictures), -1), axis=1)
    digits, disorder = (
        bundle.decide(bundle.infer({"image": shown})["raw"]).confidence.mean()
        for shown in (pictures, pixels.reshape(pictures.shape))
    )
    assert disorder < digits - 0.05


def test_fainter_ink_keeps_the_answer(bundle, bundled) -> None:  # type: ignore[no-untyped-def]
    inputs, _ = bundled
    before, after = (
        bundle.infer({"image": inputs["image"] * np.float32(f)})["raw"].argmax(axis=1)
        for f in (1.0, 0.85)
    )
    assert (before != after).mean() < 0.02

"""What `describe` drafts of folders of pictures."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from harness import module
from PIL import Image

look = module("data.look")


def arguments(folder: Path, **options: str) -> Namespace:
    return Namespace(**{"path": str(folder), "label": None, "time": None, **options})


def test_few_pictures_are_seen_more_often_and_broken_ones_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    (tmp_path / "cat" / "torn.png").write_bytes(b"\x89PNG")
    data = look.look(arguments(tmp_path))
    assert data.features[:3] == ["  height: 32", "  width: 32", "  channels: 3"]
    assert data.features[3].startswith("  drawn: null  # or light or dark")
    assert data.experiment[0].startswith("trainer: {max_epochs: 100}")
    assert any("cat/torn.png" in words for words in data.unsure)


@pytest.mark.parametrize("option", ["label", "time"])
def test_options_of_tables_are_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are for tables"):
        look.look(arguments(tmp_path, **{option: "y"}))

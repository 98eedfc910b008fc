import io

import numpy as np
import pandas as pd
import pytest
from harness import module
from numpy.typing import NDArray
from PIL import Image

view = module("task.view")
SAID = {"truth": ["a", "ü"], "said": ["a", "a"], "sure": [0.9, 0.4], "wrong": [False, True]}


@pytest.mark.row("E4")
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_stand_beside_what_is_said_of_them(channels: int) -> None:
    of = module("task.features").Features(height=4, width=4, channels=channels)
    pictures = np.zeros((2, channels, 4, 4), np.float32)
    pictures[1] = 255
    sheet = np.asarray(
        Image.open(io.BytesIO(view.view({"image": pictures}, pd.DataFrame(SAID), of)))
    )
    width, middle = view.WIDTH, view.LINE + view.SIDE // 2
    assert sheet.shape == (view.HEIGHT, view.COLUMNS * width, 3)
    for i, shade in enumerate((0, 255)):
        assert sheet[middle, i * width + view.SIDE // 2].tolist() == [shade] * 3
    below = sheet[view.LINE + view.SIDE :]  # the right answer is green, the wrong one red
    assert greener(below[:, :width]) and not greener(below[:, width:])


def greener(pixels: NDArray[np.uint8]) -> bool:
    ink = pixels[pixels.min(axis=-1) < 200].mean(axis=0)
    return bool(ink[1] > ink[0])

import base64
import io

import numpy as np
import pytest
from harness import module
from PIL import Image
from pydantic import ValidationError

features = module("task.features")
SIZE = features.Features(height=8, width=8, channels=1)


def test_rows_and_requests_give_the_same_inputs() -> None:
    rows = module("task.source").bundled().head(20)
    direct = features.encode(rows, SIZE)
    instances = [
        features.Instance.model_validate(features.row_to_instance(r))
        for r in rows.to_dict("records")
    ]
    again = features.encode(
        {"image": [features.instance_to_row(i)["image"] for i in instances]}, SIZE
    )
    assert direct["image"].shape == (20, 1, 8, 8) and direct["image"].dtype == np.float32
    assert np.array_equal(direct["image"], again["image"]) and direct["image"].max() == 255


def test_numbers_and_files_of_the_same_picture_agree() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    as_numbers = features.Instance.model_validate({"image": pixels.tolist()})
    as_file = features.Instance.model_validate(
        {"image": base64.b64encode(features.png(pixels)).decode()}
    )
    assert np.array_equal(
        *(features.encode({"image": [i.image]}, SIZE)["image"] for i in (as_numbers, as_file))
    )


def test_any_size_and_colour_becomes_the_networks_input() -> None:
    for mode in ("L", "RGB", "RGBA", "P", "1"):
        buffer = io.BytesIO()
        Image.new("RGB", (97, 64), "white").convert(mode).save(buffer, format="PNG")
        inputs = features.encode({"image": [buffer.getvalue()]}, SIZE)
        assert inputs["image"].shape == (1, 1, 8, 8)


def test_bad_pictures_are_refused_with_the_field_and_the_rule() -> None:
    texts, lists = [None, 5, "not base64", "AAAA"], [[], [[]], [[1, 2], [3]], [[1] * 5000]]
    pixels = [[[pixel]] for pixel in (float("nan"), -1, 256, "1.5", True)]
    for value in [*texts, *lists, *pixels]:
        with pytest.raises(ValidationError) as error:
            features.Instance.model_validate({"image": value})
        assert error.value.errors()[0]["loc"][0] == "image"
    with pytest.raises(ValidationError, match="colour"):
        features.Instance.model_validate({"image": [[0]], "colour": 1})


def test_shift_moves_pictures_and_keeps_their_ink() -> None:
    import torch

    torch.manual_seed(1)
    image = torch.zeros(400, 1, 8, 8)
    image[:, :, 3:5, 3:5] = 100
    moved = module("task.augment").RandomShift(1)({"image": image})["image"]
    assert moved.shape == image.shape and torch.equal(
        moved.sum(dim=(1, 2, 3)), image.sum(dim=(1, 2, 3))
    )
    assert len({tuple(m.flatten().tolist()) for m in moved}) == 9

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
        features.Instance.model_validate(features.row_to_instance(r, SIZE))
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
    texts, lists = [None, 5, "not base64"], [[], [[]], [[1, 2], [3]]]
    pixels = [[[pixel]] for pixel in (float("nan"), -1, 256, "1.5", True)]
    for value in [*texts, *lists, *pixels]:
        with pytest.raises(ValidationError) as error:
            features.Instance.model_validate({"image": value})
        assert error.value.errors()[0]["loc"][0] == "image"


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> object:
    return np.asarray(features.upright(content, SIZE).convert("L")).tolist()


def test_a_picture_means_what_a_person_sees() -> None:
    sideways = Image.fromarray(np.array([[0, 255]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pixels(saved(sideways, exif=exif.tobytes())) == [[0], [255]]
    assert pixels(saved(sideways, exif=b"Exif\0\0damaged")) == [[0, 255]]
    deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert pixels(saved(deep)) == pixels(saved(deep, "TIFF")) == [[0, 128, 255]]
    assert pixels(saved(Image.new("RGBA", (1, 1), (0, 0, 0, 0)))) == [[255]]
    assert pixels(saved(Image.new("LA", (1, 1), (0, 0)))) == [[255]]
    assert pixels(saved(Image.new("P", (1, 1), 0), transparency=0)) == [[255]]
    assert pixels(saved(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "TIFF")) == [[255]]
    assert pixels(saved(sideways.convert("RGB"), "WEBP", lossless=True)) == [[0, 255]]


def test_training_and_serving_refuse_the_same_files() -> None:
    whole = saved(Image.new("L", (40, 30), 90))
    readable = module("task.schema").readable
    small = SIZE.model_copy(update={"max_side": 39})
    light = SIZE.model_copy(update={"max_body_bytes": 150})
    cases = [(whole, SIZE, True), (whole, small, False), (whole, light, False)]
    cases += [(whole[:-30], SIZE, False), (b"AAAA", SIZE, False), (b"", SIZE, False)]
    for content, limits, fine in cases:
        instance = features.Instance(image=base64.b64encode(content).decode())
        assert readable(content, limits) == fine
        if not fine:
            with pytest.raises(ValueError, match=r"^image: "):
                features.check_instance(instance, limits)


def test_unknown_fields_are_refused() -> None:
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

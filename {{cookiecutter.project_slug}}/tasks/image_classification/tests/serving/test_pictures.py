"""Pictures as phones make them, on a real server."""

import base64
import io

import httpx
import numpy as np
import pytest
from PIL import Image


def photo(width: int, height: int, quality: int) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


@pytest.mark.row("S7")
def test_a_phones_photo_is_answered_and_a_larger_one_refused_in_words(client: httpx.Client) -> None:
    content = photo(4000, 3000, 62)
    assert len(content) > 5_500_000
    item = {"image": base64.b64encode(content).decode()}
    assert client.post("/predict", json={"instances": [item]}).status_code == 200
    item = {"image": item["image"] * 3}
    refused = client.post("/predict", json={"instances": [item]})
    assert refused.status_code == 413 and "larger than 16000000 bytes" in refused.json()["error"]
    wide = {"image": base64.b64encode(photo(8193, 2, 50)).decode()}
    refused = client.post("/predict", json={"instances": [wide]})
    assert refused.status_code == 422 and "max_side" in refused.json()["error"]

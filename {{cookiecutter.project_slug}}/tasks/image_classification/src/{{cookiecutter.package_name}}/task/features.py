"""Pictures as model inputs. Training, the server and the monitor run this same code, on numpy and
Pillow alone.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Inputs = dict[str, NDArray[np.float32]]
MAX_SIDE = 4096  # a small file can unpack to a picture that fills the memory


class Features(BaseModel):
    """Size of the network's input; pictures of another size are resized to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: int = Field(ge=1, le=3)


def _picture(value: Any) -> bytes:
    """PNG or JPEG bytes from base64 text or from rows of grey values (0 to 255)."""
    if isinstance(value, str):
        return _checked(value)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(row, list) and row for row in value)
    ):
        raise ValueError("must be a PNG or JPEG file in base64, or rows of numbers from 0 to 255")
    if len({len(row) for row in value}) != 1 or max(len(value), len(value[0])) > MAX_SIDE:
        raise ValueError(f"rows must be equally long, at most {MAX_SIDE} each way")
    if any(
        isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= 255
        for row in value
        for x in row
    ):
        raise ValueError("each value must be a number from 0 to 255")
    return png(np.asarray(value, dtype=np.float64).round().astype(np.uint8))


def _checked(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(f"the picture is larger than {MAX_SIDE} pixels")
            image.load()
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("must be a PNG or JPEG file in base64") from error
    return content


class Instance(BaseModel):
    """One item of a request: `image` is a PNG or JPEG file in base64, or rows of grey values from 0
    to 255.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    image: Annotated[
        bytes, BeforeValidator(_picture, json_schema_input_type=str | list[list[float]])
    ]


def png(pixels: NDArray[np.uint8]) -> bytes:
    """PNG file of pixels [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def encode(columns: Mapping[str, Sequence[Any]], features: Features) -> Inputs:
    """Model inputs {"image": float32 [n, C, H, W] in 0..255} from a column of PNG or JPEG bytes."""
    mode, size = ("L" if features.channels == 1 else "RGB"), (features.width, features.height)
    out = np.empty(
        (len(columns["image"]), features.channels, features.height, features.width), np.float32
    )
    for i, content in enumerate(columns["image"]):
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert(mode)
        if image.size != size:
            image = image.resize(
                size,
                Image.Resampling.BOX if min(image.size) > max(size) else Image.Resampling.BILINEAR,
            )
        out[i] = np.moveaxis(np.atleast_3d(np.asarray(image)), -1, 0)
    return {"image": out}


def instance_to_row(instance: Instance) -> dict[str, Any]:
    """Raw columns, without key and label, of one request item."""
    return {"image": instance.image}


def row_to_instance(row: Mapping[str, Any], features: Features) -> dict[str, Any]:
    """The request item, ready for JSON, that a client would send for a raw row."""
    return {"image": base64.b64encode(row["image"]).decode()}


def inputs_to_instances(inputs: Inputs, features: Features) -> list[dict[str, Any]]:
    """Request items for model inputs, for replaying corrupted examples."""
    pixels = inputs["image"].round().clip(0, 255).astype(np.uint8)
    pictures = [p[0] if p.shape[0] == 1 else np.moveaxis(p, 0, -1) for p in pixels]
    return [{"image": base64.b64encode(png(p)).decode()} for p in pictures]


def check_instance(instance: Instance, features: Features) -> None:
    """Raises ValueError "field: rule" for an item that the features forbid: any picture can be
    resized to them.
    """


def instance_schema(features: Features) -> dict[str, Any]:
    """JSON schema of a request item."""
    return Instance.model_json_schema()


def signals(inputs: Inputs, features: Features) -> dict[str, NDArray[np.float64]]:
    """Scalars per picture, each [n], that the drift monitor watches and slices are cut by."""
    image = inputs["image"].astype(np.float64) / 255
    edges = np.abs(np.diff(image, axis=-1)).mean(axis=(1, 2, 3)) + np.abs(
        np.diff(image, axis=-2)
    ).mean(axis=(1, 2, 3))
    return {
        "ink": image.mean(axis=(1, 2, 3)),
        "contrast": image.std(axis=(1, 2, 3)),
        "edges": edges,
    }


def tensor_types(features: Features) -> dict[str, str]:
    """Datatype of each input that a client of /v2 sends, where it is not FP32."""
    return {}


def from_tensors(
    tensors: Mapping[str, NDArray[np.float64]], single: set[str], features: Features
) -> Inputs:
    """Model inputs of what a client of /v2 sends."""
    return {name: values.astype(np.float32) for name, values in tensors.items()}

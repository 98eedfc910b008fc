"""Pictures as model inputs. Training, the server and the monitor run this same code, on numpy and
Pillow alone.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..settings import Mark

Inputs = dict[str, NDArray[np.float32]]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
WANTED = "a whole PNG, JPEG, WebP, BMP, TIFF or GIF file"
LIBRARIES = ("pillow",)  # beside numpy and pydantic
FILE_COLUMN = "image"  # what a file in a folder of files becomes
WHITE = (255, 255, 255, 255)
DEEPEST = 65535  # the lightest value of a 16-bit picture


class Features(BaseModel):
    """Size of the network's input; pictures of another size are resized to it. The limits hold for
    training and serving: pixels of the longer side, and bytes of a request with the file in base64.
    Where people draw such pictures, light on dark or dark on light, the page offers that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    height: int = Field(gt=0)
    width: int = Field(gt=0)
    channels: int = Field(ge=1, le=3)
    drawn: Literal["light", "dark"] | None = None
    max_side: int = Field(default=8192, gt=0)  # a small file can unpack to fill the memory
    max_body_bytes: int = Field(default=16_000_000, gt=0)
    personal: dict[str, Mark] = {}  # how reports show `id`, the file's name, and `image`


def _picture(value: Any) -> bytes:
    """A file's bytes from base64 text or from rows of grey values (0 to 255)."""
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError(f"must be {WANTED} in base64") from error
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(row, list) and row for row in value)
    ):
        raise ValueError(f"must be {WANTED} in base64, or rows of numbers from 0 to 255")
    if len({len(row) for row in value}) != 1:
        raise ValueError("rows must be equally long")
    if any(
        isinstance(x, bool) or not isinstance(x, int | float) or not 0 <= x <= 255
        for row in value
        for x in row
    ):
        raise ValueError("each value must be a number from 0 to 255")
    return png(np.asarray(value, dtype=np.float64).round().astype(np.uint8))


class Instance(BaseModel):
    """One item of a request: `image` is a PNG, JPEG, WebP, BMP, TIFF or GIF file in base64, or rows
    of grey values from 0 to 255.
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


def upright(content: bytes, features: Features) -> Image.Image:
    """The file's first picture in mode L or RGB, turned as its EXIF data says, over white.

    Raises ValueError in words for what is no whole picture or above the limits.
    """
    limit = features.max_body_bytes * 3 // 4 - 100  # in base64, with the JSON around it
    if len(content) > limit:
        raise ValueError(f"has {len(content)} bytes: at most {limit} (serving.max_body_bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if max(image.size) > features.max_side:
                side = features.max_side
                raise TooLarge(f"is larger than {side} pixels (data.features.max_side)")
            image.load()
            return _flat(_turned(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError("unpacks to too many pixels") from error
    except TooLarge:
        raise
    except Exception as error:  # a decoder meets damage with errors of many types
        raise ValueError(f"must be {WANTED}") from error


class TooLarge(ValueError):
    """More pixels than the limit."""


def _turned(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data says nothing: the picture itself is whole
        return image.copy()


def _flat(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        low, high = 0.0, float(DEEPEST)
        if image.mode == "F" or values.min() < low or values.max() > high:
            low, high = float(values.min()), float(values.max())
        scaled = (values - low) * (255 / max(high - low, 1e-12))
        return Image.fromarray(scaled.round().astype(np.uint8))
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, WHITE)
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def encode(columns: Mapping[str, Sequence[Any]], features: Features) -> Inputs:
    """Model inputs {"image": float32 [n, C, H, W] in 0..255} from a column of files' bytes."""
    mode, size = ("L" if features.channels == 1 else "RGB"), (features.width, features.height)
    out = np.empty(
        (len(columns["image"]), features.channels, features.height, features.width), np.float32
    )
    for i, content in enumerate(columns["image"]):
        image = upright(content, features).convert(mode)
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
    image = row["image"]
    return {"image": base64.b64encode(image).decode() if isinstance(image, bytes) else image}


def inputs_to_instances(inputs: Inputs, features: Features) -> list[dict[str, Any]]:
    """Request items for model inputs, for replaying corrupted examples."""
    pixels = inputs["image"].round().clip(0, 255).astype(np.uint8)
    pictures = [p[0] if p.shape[0] == 1 else np.moveaxis(p, 0, -1) for p in pixels]
    return [{"image": base64.b64encode(png(p)).decode()} for p in pictures]


def check_instance(instance: Instance, features: Features) -> None:
    """Raises ValueError "field: rule" for a file that training would refuse."""
    try:
        upright(instance.image, features)
    except ValueError as error:
        raise ValueError(f"image: {error}") from error


def instance_schema(features: Features) -> dict[str, Any]:
    """JSON schema of a request item."""
    return Instance.model_json_schema()


def tensor_types(features: Features) -> dict[str, str]:
    """Datatype of each input that a client of /v2 sends, where it is not FP32."""
    return {}


def from_tensors(
    tensors: Mapping[str, NDArray[np.float64]], single: set[str], features: Features
) -> Inputs:
    """Model inputs of what a client of /v2 sends."""
    return {name: values.astype(np.float32) for name, values in tensors.items()}


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

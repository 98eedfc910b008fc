"""How the panel of an epoch looks: the pictures side by side, with what the network says about
each.
"""

import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .features import Features

SUFFIX = "png"
COLUMNS, SIDE, LINE = (
    8,
    72,
    13,
)  # pictures beside each other; pixels of a picture, and of a line of text
GREEN, RED = "#15803d", "#dc2626"


def view(inputs: dict[str, NDArray[np.float32]], said: pd.DataFrame, of: Features) -> bytes:
    """PNG of pictures [n, C, H, W] in 0..255; above each the truth, below it the answer, red where
    it is wrong.
    """
    rows = -(-len(said) // COLUMNS)
    width, height = SIDE + 8, SIDE + 2 * LINE + 8
    sheet = Image.new("RGB", (width * min(len(said), COLUMNS), height * rows), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    pictures = np.moveaxis(inputs["image"], 1, -1).clip(0, 255).astype(np.uint8)
    for place, (pixels, answer) in enumerate(zip(pictures, said.itertuples(), strict=True)):
        left, top = place % COLUMNS * width + 4, place // COLUMNS * height + 4
        picture = Image.fromarray(pixels.squeeze(-1) if of.channels == 1 else pixels).convert("RGB")
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (left, top + LINE))
        words = [f"{x:.4g}" if isinstance(x, float) else x[:8] for x in (answer.truth, answer.said)]
        pen.text((left, top), words[0], fill="black", font=font)
        colour = RED if answer.wrong else GREEN
        pen.text(
            (left, top + LINE + SIDE + 1), f"{words[1]}  {answer.sure:.2g}", fill=colour, font=font
        )
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

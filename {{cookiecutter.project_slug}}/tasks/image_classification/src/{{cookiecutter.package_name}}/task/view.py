"""How the panel of an epoch looks: the pictures side by side, with what the network says about
each.
"""

import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.Image import Resampling

from .features import Features

SUFFIX = "png"
COLUMNS = 8  # pictures beside each other
SIDE, LINE = 72, 13  # pixels of a picture, and of a line of text
WIDTH, HEIGHT = SIDE + 8, SIDE + 2 * LINE + 8
GREEN, RED = "#15803d", "#dc2626"


def view(inputs: dict[str, NDArray[np.float32]], said: pd.DataFrame, of: Features) -> bytes:
    """PNG of pictures [n, C, H, W] in 0..255; above each the truth, below it the answer, red where
    it is wrong.
    """
    hidden = of.personal.get("image", "keep") != "keep"
    pictures = np.moveaxis(inputs["image"], 1, -1).clip(0, 255).astype(np.uint8)
    sheet = Image.new("RGB", (COLUMNS * WIDTH, -(-len(said) // COLUMNS) * HEIGHT), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (truth, answer, sure, wrong) in enumerate(said.itertuples(index=False)):
        left, top = i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT
        picture = Image.fromarray(pictures[i].squeeze()).resize((SIDE, SIDE), Resampling.NEAREST)
        if not hidden:
            sheet.paste(picture.convert("RGB"), (left, top + LINE))
        pen.text((left, top), truth[:8], "black")
        pen.text((left, top + LINE + SIDE), f"{answer[:8]}  {sure:.2g}", RED if wrong else GREEN)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()

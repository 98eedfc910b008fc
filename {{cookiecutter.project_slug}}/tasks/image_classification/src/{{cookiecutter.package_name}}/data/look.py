"""What `describe` sees in a folder of pictures, one folder per class, or in a .zip file of one."""

import argparse
import io
from functools import partial

import numpy as np
from PIL import Image

from ..task.features import Features
from ..task.schema import readable
from .draft import Draft
from .sources.folder import folder

LOOKED_AT = 200  # pictures whose size and colours are looked at
SEEN = 10_000  # pictures in all epochs: a network that saw fewer learned little
SIDES = (8, 16, 32, 64)  # of the network's input
DRAWN = "  drawn: null  # or light or dark, the ink where people draw them: the page offers that"
GREY = {"1", "L", "LA", "I", "I;16", "F"}


def look(args: argparse.Namespace) -> Draft:
    """The draft for the pictures; raises ValueError where they cannot be read."""
    if args.label or args.time:
        raise ValueError(
            "--label and --time are for tables: a picture's label is the name of its folder"
        )
    rows = folder(args.path)
    chosen = rows.iloc[:: max(1, len(rows) // LOOKED_AT)]
    limits = Features(height=8, width=8, channels=1)
    whole = chosen["image"].map(partial(readable, features=limits))
    if not whole.any():
        raise ValueError(f"{args.path} holds no picture that can be read")
    sizes, modes = [], set()
    for content in chosen["image"][whole]:
        with Image.open(io.BytesIO(content)) as picture:
            sizes.append(min(picture.size))
            modes.add(picture.mode)
    side = max([size for size in SIDES if size <= np.median(sizes)], default=SIDES[0])
    channels = 1 if modes <= GREY else 3
    draft = Draft(args.path, "files", {"path": args.path}, rows["label"])
    draft.features = [f"  height: {side}", f"  width: {side}", f"  channels: {channels}"]
    draft.features.append(DRAWN)
    draft.features.append("  max_body_bytes: ${serving.max_body_bytes}  # larger ones are refused")
    draft.columns = ["id", "image"]  # the file's name, and what it shows
    epochs = min(100, max(12 if side > SIDES[1] else 30, SEEN // len(rows)))
    draft.experiment = ["trainer: {max_epochs: " + str(epochs) + "}  # few pictures need more"]
    if side > SIDES[1]:  # half the width is a quarter of the time
        draft.experiment.append("model: {width: 16}")
    draft.split_key, draft.split_reason = "near", "shots of one moment share a split"
    draft.duplicates = float(rows["image"].duplicated().mean())
    draft.time_reason = "pictures have none"
    if not whole.all():
        bad = chosen["id"][~whole].tolist()
        draft.unsure.append(f"{len(bad)} of {len(chosen)} files are no whole pictures: {bad[:5]}")
    draft.unsure.append(f"the network sees {side}x{side} pixels: larger shows more and costs more")
    return draft

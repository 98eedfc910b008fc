"""Where the rows come from. Bring your own data with `configs/source`, or add a function here and
name it there.
"""

import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pandas as pd
from fsspec import AbstractFileSystem
from fsspec.implementations.zip import ZipFileSystem

from ..data.sources import fetched, reading, table
from .features import png

LEVELS = 16  # the bundled pictures count ink in 17 steps


def bundled() -> pd.DataFrame:
    """The handwritten digits that scikit-learn carries: id, image (PNG bytes), label; 1,797 rows.

    Source: E. Alpaydin and C. Kaynak 1998, Optical Recognition of Handwritten Digits,
    doi:10.24432/C50P49 (test part).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / LEVELS)).round().astype(np.uint8)
    return pd.DataFrame(
        {
            "id": [f"digit-{i:04d}" for i in range(len(pixels))],
            "image": [png(p) for p in pixels],
            "label": digits.target.astype(str),
        }
    )


def folder(
    path: str,
    manifest: str | None = None,
    sha256: str | None = None,
    options: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Columns id (the file's name inside the folder), image (the file's bytes) and label.

    `path` is a folder or a .zip file of one, here or at any address that fsspec knows; `options` go
    to fsspec. The label is the name of the folder that a file lies in; or `manifest`, a .csv or
    .parquet file inside, has the columns `file` (its name, as seen from the manifest) and `label`.
    Each file that is listed, or there and not hidden, becomes a row: validation reports those that
    are no pictures.
    """
    if path.endswith(".zip"):
        with fetched(path, sha256, options) as file, reading(path):
            return _pictures(ZipFileSystem(str(file)), "", manifest)
    if sha256:
        raise ValueError(
            f"{path} is a folder, which has no SHA-256: set data.source.sha256 for a .zip file only"
        )
    with reading(path):
        system, root = fsspec.url_to_fs(path, **(options or {}))
        return _pictures(system, root.rstrip("/"), manifest)


def _pictures(system: AbstractFileSystem, root: str, manifest: str | None) -> pd.DataFrame:
    labels = _listed(system, root, manifest) if manifest else _by_folder(system, root)
    if not labels:
        raise ValueError(
            "it is not there or holds no pictures: put them into one folder per class, or name a manifest"
        )
    contents = system.cat(list(labels))  # many at a time from a store
    ids = [name.removeprefix(root).lstrip("/") for name in labels]
    return pd.DataFrame(
        {"id": ids, "image": [contents[name] for name in labels], "label": list(labels.values())}
    )


def _by_folder(system: AbstractFileSystem, root: str) -> dict[str, str]:
    """The label of each file, by its full name."""
    labels = {}
    for name in sorted(system.find(root)):
        inside = PurePosixPath(name.removeprefix(root).lstrip("/"))
        if any(part.startswith((".", "__MACOSX")) for part in inside.parts):
            continue
        if not inside.parent.name:
            raise ValueError(
                f"{inside} lies in no folder, so it has no label: move it, or name a manifest"
            )
        labels[name] = inside.parent.name
    return labels


def _listed(system: AbstractFileSystem, root: str, manifest: str) -> dict[str, str]:
    full = f"{root}/{manifest}".lstrip("/") if not root else f"{root}/{manifest}"
    with tempfile.TemporaryDirectory() as copy:
        local = Path(copy) / PurePosixPath(manifest).name
        system.get_file(full, str(local))
        rows = table(str(local), label="label", id="file", columns=[])
    if rows["id"].duplicated().any():
        raise ValueError(f"{manifest} lists {rows['id'][rows['id'].duplicated()].iloc[0]} twice")
    base = full.rpartition("/")[0]
    names = [f"{base}/{name}" if base else name for name in rows["id"]]
    missing = sorted(set(names) - set(system.find(root)))
    if missing:
        raise ValueError(
            f"{manifest} lists {len(missing)} files that are not there, such as {missing[0]}"
        )
    return dict(zip(names, rows["label"], strict=True))

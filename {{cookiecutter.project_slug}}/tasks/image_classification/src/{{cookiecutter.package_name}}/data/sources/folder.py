"""The files of a folder as rows, here or at any address that fsspec knows; chosen in
`configs/source`.
"""

from pathlib import PurePosixPath
from typing import Any

import fsspec
import pandas as pd
from fsspec import AbstractFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.zip import ZipFileSystem

from . import arranged, fetched, reading


def folder(
    path: str,
    manifest: str | None = None,
    sha256: str | None = None,
    options: dict[str, Any] | None = None,
    column: str = "image",
) -> pd.DataFrame:
    """Columns id (the file's name inside the folder), `column` (the file's bytes) and label.

    `path` is a folder or a .zip file of one; `options` go to fsspec. The label is the name of the
    folder that a file lies in; or `manifest`, a .csv or .parquet file inside, has the columns
    `file` (its name, as seen from the manifest) and `label`. Each file that is listed, or there and
    not hidden, becomes a row: validation reports those that are no pictures.
    """
    if path.endswith(".zip"):
        with fetched(path, sha256, options) as file, reading(path):
            return _rows(ZipFileSystem(str(file)), manifest, column)
    if sha256:
        raise ValueError("data.source.sha256 is for a .zip file: a folder has none")
    with reading(path):
        system, root = fsspec.url_to_fs(path, **(options or {}))
        return _rows(DirFileSystem(root, system), manifest, column)


def _rows(system: AbstractFileSystem, manifest: str | None, column: str) -> pd.DataFrame:
    labels = _listed(system, manifest) if manifest else _by_folder(system)
    if not labels:
        raise ValueError(
            "it is not there or empty: put the files into one folder per class, or name a manifest"
        )
    contents = system.cat(list(labels))  # many at a time from a store
    files = [contents[name] for name in labels]
    return pd.DataFrame({"id": list(labels), column: files, "label": list(labels.values())})


def _by_folder(system: AbstractFileSystem) -> dict[str, str]:
    """The label of each file."""
    labels = {}
    for name in sorted(system.find("")):
        path = PurePosixPath(name)
        if any(part.startswith((".", "__MACOSX")) for part in path.parts):
            continue
        if not path.parent.name:
            raise ValueError(
                f"{name} lies in no folder, so it has no label: move it, or name a manifest"
            )
        labels[name] = path.parent.name
    return labels


def _listed(system: AbstractFileSystem, manifest: str) -> dict[str, str]:
    """The label of each file that the manifest names."""
    read = pd.read_parquet if manifest.endswith(".parquet") else pd.read_csv
    with system.open(manifest) as file:
        rows = arranged(read(file, dtype=str), manifest, "label", "file", [])
    if rows["id"].duplicated().any():
        raise ValueError(f"{manifest} lists {rows['id'][rows['id'].duplicated()].iloc[0]} twice")
    names = [str(PurePosixPath(manifest).parent / name) for name in rows["id"]]
    missing = sorted(set(names) - set(system.find("")))
    if missing:
        raise ValueError(
            f"{manifest} lists {len(missing)} files that are not there, such as {missing[0]}"
        )
    return dict(zip(names, rows["label"], strict=True))

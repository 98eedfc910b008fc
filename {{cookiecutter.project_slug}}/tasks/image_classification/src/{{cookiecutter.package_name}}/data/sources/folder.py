"""The files of a folder as rows, here or at any address that fsspec knows; chosen in
`configs/source`.
"""

import os
from collections import Counter
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import normalize

import fsspec
import pandas as pd
from fsspec import AbstractFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.zip import ZipFileSystem

from . import Dialect, arranged, fetched, read_table, reading

LITTER = {"thumbs.db", "desktop.ini", "__macosx"}  # of Windows and macOS


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
    # One name can be spelled in two ways in Unicode: macOS splits letters from their accents.
    ids = [normalize("NFC", name) for name in labels]
    classes = [
        normalize("NFC", label) if isinstance(label, str) else label for label in labels.values()
    ]
    twice = [id_ for id_, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(
            f"{twice[0]} is there twice, once in NFC and once in NFD spelling: rename one"
        )
    return pd.DataFrame({"id": ids, column: files, "label": classes})


def _files(system: AbstractFileSystem) -> list[str]:
    """The names of all files; folders that are links are followed, but not in circles."""
    if not isinstance(system, DirFileSystem) or not isinstance(system.fs, LocalFileSystem):
        return sorted(system.find(""))
    root, names = Path(system.path), []
    for folder, inner, files in os.walk(root, followlinks=True):
        above = {Path(folder).resolve(), *Path(folder).resolve().parents}
        inner[:] = [name for name in inner if (Path(folder) / name).resolve() not in above]
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in files]
    return sorted(names)


def _by_folder(system: AbstractFileSystem) -> dict[str, str]:
    """The label of each file."""
    labels = {}
    for name in _files(system):
        path = PurePosixPath(name)
        if any(part.startswith(".") or part.lower() in LITTER for part in path.parts):
            continue
        if not path.parent.name:
            raise ValueError(
                f"{name} lies in no folder, so it has no label: move it, or name a manifest"
            )
        labels[name] = path.parent.name
    return labels


def _listed(system: AbstractFileSystem, manifest: str) -> dict[str, str]:
    """The label of each file that the manifest names."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / PurePosixPath(manifest).name
        system.get_file(manifest, str(file))
        rows = arranged(read_table(file, manifest, Dialect()), manifest, "label", "file", [])
    if rows["id"].duplicated().any():
        raise ValueError(f"{manifest} lists {rows['id'][rows['id'].duplicated()].iloc[0]} twice")
    files = {normalize("NFC", name): name for name in _files(system)}
    named = [str(PurePosixPath(manifest).parent / name) for name in rows["id"]]
    names = [normalize("NFC", name) for name in named]
    missing = sorted(set(names) - set(files))
    if missing:
        raise ValueError(
            f"{manifest} lists {len(missing)} files that are not there, such as {missing[0]}"
        )
    return dict(zip([files[name] for name in names], rows["label"], strict=True))

"""Rows from outside: CSV and Parquet files anywhere that fsspec reaches; chosen in
`configs/source`.

Each source gives the columns `id`, the features as they come, and `label`. What cannot be read
whole is an error, never fewer rows. Secrets stay out of the configuration: they are found in the
environment, in ~/.aws and in ~/.netrc.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from ...provenance import sha256 as checksum

RESERVED = {"id", "label", "content"}
NUMBER = "row number"  # the key of rows that come without one


def table(
    path: str,
    label: str,
    id: str | None = None,
    columns: Sequence[str] | None = None,
    sha256: str | None = None,
    separator: str = ",",
    options: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """One .csv, .csv.gz or .parquet file: a local path, or an https://, s3:// or other address that
    fsspec knows.

    `label` and `id` name columns; without `id` the row number is the key. `columns` keeps these
    features; without it all stay, and validation refuses those that the configuration does not
    declare. `options` go to fsspec.
    """
    with fetched(path, sha256, options) as file:
        if ".csv" in file.suffixes:
            # All as text: which columns hold numbers, and which hold codes such as 007, is said by
            # the schema.
            rows = pd.read_csv(file, sep=separator, index_col=False, dtype=str)
        elif file.suffix == ".parquet":
            rows = pd.read_parquet(file)
        else:
            raise ValueError(f"{path} must end in .csv, .csv.gz or .parquet")
    return arranged(rows, path, label, id, columns)


@contextmanager
def fetched(
    path: str, sha256: str | None = None, options: dict[str, Any] | None = None
) -> Iterator[Path]:
    """A file as a local one whose SHA-256 is the given one; a copy made for this is removed
    afterwards.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(path)
        if "://" in path:
            file = Path(folder) / PurePosixPath(urlsplit(path).path).name
            _download(path, file, options or {})
        if not file.is_file():
            raise ValueError(f"{path} is no file (data.source.path)")
        if sha256 and checksum(file) != sha256.lower():
            raise ValueError(
                f"{path} has SHA-256 {checksum(file)}, not data.source.sha256 {sha256}"
            )
        yield file


def _download(path: str, file: Path, options: dict[str, Any]) -> None:
    import fsspec

    if path.startswith("http"):
        from aiohttp import ClientTimeout

        # No limit on the whole, for large files; proxies and ~/.netrc count.
        timeout = ClientTimeout(total=None, sock_connect=30, sock_read=60)
        options = {"client_kwargs": {"trust_env": True, "timeout": timeout}, **options}
    with reading(path):
        system, inside = fsspec.url_to_fs(path, **options)
        system.get_file(inside, str(file))


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Around calls of fsspec: each kind of store raises the errors of its own library, of which
    ValueError is made.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read: {reason}") from error


def arranged(
    rows: pd.DataFrame, what: str, label: str, id: str | None, columns: Sequence[str] | None
) -> pd.DataFrame:
    """Columns `id`, features, `label`. Raises ValueError where a named column is missing."""
    if id is None:
        rows, id = rows.assign(**{NUMBER: range(len(rows))}), NUMBER
    features = [*(rows.columns.drop([id, label], errors="ignore") if columns is None else columns)]
    missing = [name for name in (id, *features, label) if name not in rows]
    if missing:
        raise ValueError(f"{what} lacks the columns {missing}: it has {list(rows.columns)}")
    if reserved := sorted(RESERVED & {*features}):
        raise ValueError(
            f"{what} has features called {reserved}: set data.source.id or label, or leave them out"
        )
    return rows[[id, *features, label]].set_axis(["id", *features, "label"], axis=1)


def as_text(values: pd.Series) -> pd.Series:
    """Text as a person writes it: whole numbers have no decimal point, although missing ones made
    them floats.
    """
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype("str")

"""Rows from outside: CSV and Parquet files anywhere that fsspec reaches; chosen in
`configs/source`.

Each source gives the columns `id`, the features as they come, and `label`. What cannot be read
whole is an error, never fewer rows. Secrets stay out of the configuration: they are found in the
environment, in ~/.aws and in ~/.netrc.
"""

import codecs
import csv
import gzip
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ...provenance import sha256 as checksum

# How to make a table of what is none.
CONVERT = {
    ".xlsx": "`pandas.read_excel(path).to_csv(...)`, or save it as CSV in the spreadsheet",
    ".jsonl": "`pandas.read_json(path, lines=True).to_parquet(...)` converts it",
    ".json": "`pandas.read_json(path).to_parquet(...)` converts it",
    ".tsv": "rename it to .csv and set data.source.separator='\\t'",
}
SEPARATORS = (",", ";", "\t", "|")
READ_BYTES = 1 << 20
RESERVED = {"id", "label", "content"}
NUMBER = "row number"  # the key of rows that come without one


class Dialect(NamedTuple):
    """How a CSV file is written."""

    separator: str = ","
    encoding: str = "utf-8"
    quote: str = '"'


def table(
    path: str,
    label: str,
    id: str | None = None,
    columns: Sequence[str] | None = None,
    sha256: str | None = None,
    separator: str = ",",
    encoding: str = "utf-8",
    quote: str = '"',
    options: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """One .csv, .csv.gz or .parquet file: a local path, or an https://, s3:// or other address that
    fsspec knows.

    `label` and `id` name columns; without `id` the row number is the key. `columns` keeps these
    features; without it all stay, and validation refuses those that the configuration does not
    declare. `separator`, `encoding` and `quote` are those of a CSV file; `options` go to fsspec.
    """
    with fetched(path, sha256, options) as file:
        rows = read_table(file, path, Dialect(separator, encoding, quote))
    return arranged(rows, path, label, id, columns)


def read_table(file: Path, name: str, dialect: Dialect) -> pd.DataFrame:
    """The rows of a CSV or Parquet file, called `name` in errors. A CSV file's values are text, or
    missing where the field is empty: which columns hold numbers, and which hold codes such as 007,
    is said by the schema.
    """
    if file.suffix == ".parquet":
        # Types that may be missing: a float64 in their place would round long whole numbers.
        return pd.read_parquet(file, dtype_backend="numpy_nullable")
    if not is_table(file):
        remedy = CONVERT.get(file.suffix, "save it as one of these")
        raise ValueError(f"{name} must end in .csv, .csv.gz or .parquet: {remedy}")
    try:
        rows = pa.csv.read_csv(file, **options(file, name, dialect))
    except (pa.ArrowInvalid, UnicodeError) as error:
        raise ValueError(fault(file, name, dialect, error)) from None
    return pd.DataFrame(rows.to_pandas())


def options(file: Path, name: str, dialect: Dialect) -> dict[str, Any]:
    """How pyarrow reads a CSV file. Raises ValueError where its header cannot be read."""
    columns = header(file, name, dialect)
    if repeated := [column for column in columns if columns.count(column) > 1]:
        raise ValueError(f"{name} has two columns called {repeated[0]!r}: rename one")
    return {
        "read_options": pa.csv.ReadOptions(encoding=dialect.encoding),
        "parse_options": pa.csv.ParseOptions(
            delimiter=dialect.separator, quote_char=dialect.quote, newlines_in_values=True
        ),
        "convert_options": pa.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    }


def header(file: Path, name: str, dialect: Dialect) -> list[str]:
    """The names of a CSV file's columns. Raises ValueError where it is written in other letters."""
    try:
        return next(records(file, dialect), (0, [""]))[1]
    except (UnicodeError, LookupError) as error:
        raise ValueError(misread(name, dialect, error)) from None


def is_table(file: Path) -> bool:
    """Whether `read_table` takes files of this name."""
    return file.name.endswith((".csv", ".csv.gz", ".parquet"))


def blocks(file: Path, dialect: Dialect, wanted: list[str], rows: int) -> Iterator[pa.Table]:
    """A CSV or Parquet file of any size, as tables of up to so many rows. A CSV file may have
    another separator than the dialect's, if with that its columns are the wanted ones.
    """
    name = str(file)
    try:
        if file.suffix == ".parquet":
            with pq.ParquetFile(file, buffer_size=READ_BYTES) as opened:
                for batch in opened.iter_batches(rows):
                    yield pa.Table.from_batches([batch])
            return
        dialects = [dialect, *(dialect._replace(separator=s) for s in SEPARATORS)]
        matching = [d for d in dialects if {*wanted} & {*header(file, name, d)}]
        dialect = (matching or dialects)[0]
        for part in pa.csv.open_csv(file, **options(file, name, dialect)):
            for batch in pa.Table.from_batches([part]).to_batches(rows):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, UnicodeError, OSError) as error:
        if file.suffix == ".parquet":
            raise ValueError(f"{name} is not a Parquet file: {error}") from None
        raise ValueError(fault(file, name, dialect, error)) from None


def records(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """The line on which each record of a CSV file begins, and its fields; empty lines are none."""
    encoding = dialect.encoding
    if codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"  # a spreadsheet's mark at the start is no part of the first name
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding=encoding, newline="") as lines:
        reader, line = csv.reader(lines, delimiter=dialect.separator, quotechar=dialect.quote), 1
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1


def fault(file: Path, name: str, dialect: Dialect, error: Exception) -> str:
    """What is wrong with a CSV file that could not be read: its encoding, or the first record of
    another length than the header.
    """
    width = 0
    try:
        for line, record in records(file, dialect):
            width = width or len(record)
            if len(record) != width:
                return (
                    f"{name}, line {line}: {len(record)} fields where the header has {width}; mend "
                    f"the line, or set data.source.separator or quote, now {dialect.separator!r} "
                    f"and {dialect.quote!r}"
                )
    except UnicodeError as wrong:
        return misread(name, dialect, wrong)
    except (csv.Error, EOFError, OSError) as wrong:
        return f"{name} cannot be read: {wrong}"
    return f"{name} cannot be read: {error}"


def misread(name: str, dialect: Dialect, error: Exception) -> str:
    """In words, that a file has another encoding."""
    remedy = "set data.source.encoding, such as latin-1, cp1252 or utf-16"
    return f"{name} is not written in {dialect.encoding} ({error}): {remedy}"


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
        known = [str(name) for name in rows.columns if name != NUMBER]
        hint = "; is data.source.separator right?" if len(known) == 1 else ""
        raise ValueError(f"{what} lacks the columns {missing}: it has {known[:20]}{hint}")
    if reserved := sorted(RESERVED & {*features}):
        raise ValueError(
            f"{what} has features called {reserved}: set data.source.id or label, or leave them out"
        )
    return rows[[id, *features, label]].set_axis(["id", *features, "label"], axis=1)


def as_text(values: pd.Series) -> pd.Series:
    """Text as a person writes it: whole numbers have no decimal point, although missing ones made
    them floats; moments are ISO 8601.
    """
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    if pd.api.types.is_datetime64_any_dtype(values):
        values = values.map(lambda moment: moment.isoformat(), na_action="ignore")
    return values.astype("str")

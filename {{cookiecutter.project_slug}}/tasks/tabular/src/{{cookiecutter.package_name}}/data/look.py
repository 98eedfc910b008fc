"""What `describe` sees in a table: a CSV or Parquet file, or a query."""

import argparse
import difflib
import gzip
import math
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fsspec import available_protocols

from ..provenance import sha256
from ..settings import Time
from ..task.features import MAX_TEXT
from ..task.schema import near_hash
from .draft import Draft, believed, is_value, key, quoted
from .schema import numbers
from .sources import RESERVED, Dialect, as_text, fetched, read_table
from .split import ZONE, times

WORDS = {"NA", "N/A", "na", "n/a", "NaN", "nan", "NULL", "null", "None", "none", "?", "-", "."}
SIGNS = [(".", ""), (",", "."), (",", ""), (".", ",")]  # of decimals and thousands
FORMATS = ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%d.%m.%Y %H:%M"]
KEY = re.compile(r"(^|[_\W])(id|key|uuid|guid|nr|no|number)$", re.I)
GROUP = re.compile(
    "patient|customer|client|user|person|subject|group|session|household|device|site", re.I
)
LABEL = re.compile(r"^(y|label|target|class|outcome|result)$", re.I)
NEAR_SHARE = 0.003  # of near-duplicates that keep together
SEEN = 20_000  # rows, about, that decide on what a column holds
ON_A_PAGE = 40  # columns of an example
LISTED, FREQUENT = 50, 10  # values of a category that are listed; rows that make a value frequent


def look(args: argparse.Namespace) -> Draft:
    """The draft for a table; raises ValueError where it or its label cannot be read."""
    rows, choice, source, unsure = opened(args)
    if len(rows) < 2:
        raise ValueError(f"{args.path} has {len(rows)} rows: there is nothing to describe")
    nested = [name for name in rows if is_nested(rows[name])]
    rows = rows.drop(columns=nested)
    unsure += [f"column {name!r} is left out: it holds lists, not values" for name in nested]
    label = label_of([str(name) for name in rows.columns], args.label, unsure)
    source["label"] = label
    table, written = typed(rows, unsure)
    if not is_value(table[label].dropna()):  # classes stay as they are written, 1.0 or 01
        table[label] = as_text(rows[label].mask(rows[label].isin(written.get("missing", []))))
    draft = Draft(args.path, choice, source, table[label], written, unsure=unsure)
    columns = table.drop(columns=label)
    if args.time is not None:
        named_column([str(name) for name in columns], args.time, "--time")
        draft.time = time_yaml(args.time, columns[args.time])
        draft.time_reason = "the newest rows are the test; it is no feature then"
        columns = columns.drop(columns=args.time)
    unique = next((name for name in columns if is_key(name, rows[name])), None)
    if unique is not None:
        source["id"] = unique
        unsure.append(f"{unique!r} is taken for the key: no two rows share it")
    group = next((name for name in columns if is_group(name, rows[name])), None)
    if group is not None:
        draft.split_key = group
        draft.split_reason = "rows of one group share a split; it is no feature then"
        unsure.append(
            f"{group!r} is taken for a group, by its name: `split.key: content` otherwise"
        )
    chosen = columns.drop(columns=[name for name in (unique, group) if name is not None])
    kinds = {str(name): kind_of(str(name), chosen[name]) for name in chosen}
    for name, kind in kinds.items():
        if kind in LEFT_OUT:
            unsure.append(f"column {name!r} is left out: {LEFT_OUT[kind]}")
    features = [name for name, kind in kinds.items() if kind not in LEFT_OUT]
    if not features:
        raise ValueError(f"{args.path} has no column that could be a feature")
    divides = [name for name in (group, args.time) if name is not None]
    draft.columns = ["id", *features, *divides, "label"]
    if nested or len(features) < len(chosen.columns):
        source["columns"] = [*features, *divides]
    describe_features(draft, chosen[features], kinds)
    describe_repeats(draft, chosen[features], group is not None or args.time is not None)
    return draft


def describe_repeats(draft: Draft, features: pd.DataFrame, divided: bool) -> None:
    """Sets what follows from equal and nearly equal rows; `divided` says that the split has a rule
    of its own.
    """
    content = pd.util.hash_pandas_object(features, index=False)
    pairs = pd.DataFrame({"content": content, "label": as_text(draft.label)})
    draft.duplicates = float(content.duplicated().mean())
    answers = pairs.drop_duplicates()
    draft.conflicts = float(answers["content"].duplicated().sum() / len(features))
    alike = similar(features)
    if divided:
        draft.max_near = round(3 * alike + 0.01, 2)
    elif alike > NEAR_SHARE:
        draft.split_key = "near"
        draft.split_reason = "some rows are nearly equal: those share a split"


LEFT_OUT = {
    "text": "nearly every row has a text of its own",
    "constant": "it has one value, or none",
    "long": f"it has texts of over {MAX_TEXT} characters",
    "reserved": "the project has a column of this name: rename yours to keep it",
}


def similar(columns: pd.DataFrame) -> float:
    """Share of the rows that are equal to another, different one when numbers are rounded."""
    ranges = {}
    for name in columns.select_dtypes("number"):
        low, high = believed(columns[name])
        ranges[str(name)] = (float(low), float(high))
    alike = near_hash(columns, ranges)[~columns.duplicated()].duplicated()
    return float(alike.sum() / len(columns))


def opened(args: argparse.Namespace) -> tuple[pd.DataFrame, str, dict[str, Any], list[str]]:
    """The rows, the choice of source, its arguments, and what is unsure."""
    unsure: list[str] = []
    if args.query:
        sql = import_module(".sources.databases", __package__).read_query
        return sql(args.path, args.query), "sql", {"url": args.path, "query": args.query}, unsure
    source: dict[str, Any] = {"path": args.path}
    choice = "files" if "://" not in args.path else "s3" if args.path[:2] == "s3" else "url"
    if choice == "url" and args.path.partition("://")[0] not in available_protocols():
        raise ValueError(f"{args.path}: of a database, say which rows: --query 'SELECT ...'")
    with fetched(args.path) as file:
        dialect = Dialect()
        if ".csv" in file.suffixes:
            dialect = dialect_of(file, unsure)
        if choice == "url":
            source["sha256"] = sha256(file)
        rows = read_table(file, args.path, dialect)
    defaults = Dialect()._asdict()
    source |= {k: v for k, v in dialect._asdict().items() if v != defaults[k]}
    return rows, choice, source, unsure


def dialect_of(file: Path, unsure: list[str]) -> Dialect:
    """Encoding and separator, as they seem to be."""
    content = file.read_bytes()
    if file.suffix == ".gz":
        content = gzip.decompress(content)
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"
        text = content.decode(encoding, errors="replace")
        unsure.append("the encoding: it is not UTF-8, and cp1252 is a guess")
    header = next(iter(text.splitlines()), "")
    separator = max(",;\t|", key=header.count)
    return Dialect(separator, encoding)


def label_of(names: list[str], label: str | None, unsure: list[str]) -> str:
    """The column to predict: as said, by its name, or the last one."""
    if label is None:
        named = [name for name in names if LABEL.fullmatch(name)]
        label = named[0] if named else names[-1]
        unsure.append(
            f"the column to predict: {label!r}, "
            + ("by its name" if named else "the last one")
            + "; `--label` says another"
        )
    return named_column(names, label, "--label")


def named_column(names: list[str], name: str, option: str) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, names, 5, 0.3) or names[:10]
        raise ValueError(f"{option} {name!r} is no column: did you mean {', '.join(near)}?")
    return name


def typed(rows: pd.DataFrame, unsure: list[str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows with numbers as numbers, and what had to be known to read them."""
    texts = {n: sample(rows[n]) for n in rows if not pd.api.types.is_numeric_dtype(rows[n])}
    decimal, thousands = max(
        SIGNS, key=lambda signs: sum(is_number(v, *signs)[0] for v in texts.values())
    )
    missing: set[str] = set()
    table = rows.copy()
    for name, values in rows.items():
        if pd.api.types.is_bool_dtype(values):
            table[name] = as_text(values)
        elif name in texts:
            isnumber, words = is_number(texts[name], decimal, thousands)
            if isnumber:
                isnumber, words = is_number(values, decimal, thousands)
            if isnumber:
                missing |= words
                table[name] = numbers(values.mask(values.isin(words)), decimal, thousands)
            else:
                table[name] = as_text(values)
    written: dict[str, Any] = {"missing": sorted(missing)} if missing else {}
    if (decimal, thousands) != SIGNS[0]:
        written |= {"decimal": decimal, "thousands": thousands}
    if missing:
        unsure.append(f"these words among numbers are taken for missing values: {sorted(missing)}")
    return table, written


def sample(values: pd.Series) -> pd.Series:
    """Rows from all over a column: enough to see what it holds."""
    return values.iloc[:: max(1, len(values) // SEEN)]


def is_number(values: pd.Series, decimal: str, thousands: str) -> tuple[bool, set[str]]:
    """Whether a column of text holds numbers, and the words among them."""
    present = values.dropna()
    if pd.api.types.is_datetime64_any_dtype(present) or not len(present):
        return False, set()
    text = as_text(present)
    if text.str.fullmatch(r"0\d+").any():  # 007 is a code
        return False, set()
    right = numbers(text, decimal, thousands).notna()
    words = {*text[~right]}
    few = len(words) <= 2 and right.mean() >= 0.9
    return bool(right.mean() >= 0.5 and (few or words <= WORDS)), words


def is_nested(values: pd.Series) -> bool:
    """Whether a column of Parquet or SQL holds lists or structures."""
    present = values.dropna() if values.dtype == object else values[:0]
    return len(present) > 0 and isinstance(present.iloc[0], list | dict | np.ndarray)


def is_key(name: Any, values: pd.Series) -> bool:
    """Whether no two rows share a value, and the name or the values are those of a key."""
    if values.isna().any() or not values.is_unique:
        return False
    text = as_text(values)
    code = text.str.fullmatch(r"[A-Za-z]+[-_]?\d+|[0-9a-f-]{32,36}").all()
    return bool(KEY.search(str(name)) or code)


def is_group(name: Any, values: pd.Series) -> bool:
    share = values.nunique() / len(values)
    return bool(GROUP.search(str(name)) and values.notna().all() and 0.01 < share < 0.7)


def kind_of(name: str, values: pd.Series) -> str:
    """What a column seems to be: numeric, date, categorical, or a reason to leave it out."""
    if name in RESERVED:
        return "reserved"
    different = values.nunique()
    if different < 2:
        return "constant"
    if pd.api.types.is_numeric_dtype(values):
        return "numeric"
    if date_format(values) is not None:
        return "date"
    if different > max(LISTED, len(values) / 2):
        return "text"
    return "long" if values.str.len().max() > MAX_TEXT else "categorical"


def date_format(values: pd.Series) -> str | None:
    """The format of a column of dates, "" for ISO 8601; None for other text."""
    text = as_text(values.dropna())
    if not sample(text).str.contains(r"\d.*\d").all():
        return None
    for form in ("", *FORMATS):
        try:
            for part in (sample(text), text):
                moments = times(part, Time(column="", format=form or None))
        except ValueError:
            continue
        if pd.api.types.is_datetime64_any_dtype(moments):
            return form
    return None


def describe_features(draft: Draft, columns: pd.DataFrame, kinds: dict[str, str]) -> None:
    """Adds the lines of `features`, and what follows from missing values and dates."""
    by_kind = {kind: [n for n in columns if kinds[n] == kind] for kind in {*kinds.values()}}
    lines, others = draft.features, []
    if by_kind.get("numeric"):
        lines.append("  numeric:                 # lowest and highest value that is believed")
        for name in by_kind["numeric"]:
            low, high = believed(columns[name])
            lines.append(f"    {key(name)}: [{low}, {high}]")
    if by_kind.get("categorical"):
        lines.append("  categorical:             # the values that exist, as they are written")
        for name in by_kind["categorical"]:
            counts = as_text(columns[name].dropna()).value_counts()
            if len(counts) > LISTED:
                others.append(name)
                counts = counts[counts >= FREQUENT][:LISTED]
            lines.append(f"    {key(name)}: {quoted(sorted(counts.index))}")
    if by_kind.get("date"):
        lines.append("  dates:                   # their parts are numbers for the model")
        for name in by_kind["date"]:
            lines.append(f"    {key(name)}: {date_yaml(columns[name])}")
        first = key(by_kind["date"][0])
        draft.time_reason = "or {column: " + first + "}: `describe --time` drafts that"
    if others:
        lines.append(f"  others: {quoted(others)}  # here all other values count as one")
    missing = columns.isna().mean()
    draft.missing_shares = missing.tolist()
    gaps = [str(name) for name in missing[missing > 0].index]
    lines.append(f"  optional: {quoted(gaps)}  # these may be missing")
    if len(columns.columns) <= ON_A_PAGE:
        row = usual(columns[[name for name in columns if name not in gaps]])
        pairs = ", ".join(f"{key(name)}: {quoted(value)}" for name, value in row.items())
        lines.append("  examples:                # for the page: the usual row, so nobody's own")
        lines.append("    - {" + pairs + "}")


def usual(columns: pd.DataFrame) -> dict[str, Any]:
    """The median of each column of numbers, and the most frequent text or date of the others."""
    row: dict[str, Any] = {}
    for name in columns:
        values = columns[name].dropna()
        if pd.api.types.is_numeric_dtype(values):
            low, high = map(float, believed(values))
            decimals = 3 - math.floor(math.log10(high - low))
            middle = round(float(values.median()), decimals)
            row[str(name)] = int(middle) if middle.is_integer() else middle
        else:
            row[str(name)] = str(as_text(values).mode()[0])
    return row


def time_yaml(name: str, values: pd.Series) -> str:
    """The declaration of the column that rows are split by in time."""
    form = "" if pd.api.types.is_numeric_dtype(values) else date_format(values)
    if form is None:
        raise ValueError(
            f"--time {name!r} holds {values.dropna().iloc[0]!r}, no number and no date of a usual "
            "format: describe without it, then set data.split.time.format and data.source.columns"
        )
    written = f', format: "{form}"' if form else ""
    return "{column: " + quoted(name) + written + "}"


def date_yaml(values: pd.Series) -> str:
    """The declaration of a column of dates."""
    form, zone = date_format(values), ""
    text = as_text(values.dropna())
    moments = times(text, Time(column="", format=form or None))
    years = f"[{moments.dt.year.min()}, {moments.dt.year.max() + 5}]"
    daily = (moments.dt.hour == 0).all()
    parts = "year, month cycle, weekday" + ("" if daily else ", hour cycle")
    if text.str.contains(ZONE).all():
        zone = ", zone: UTC"
    written = f', format: "{form}"' if form else ""
    return "{" + f"parts: [{parts}], years: {years}{written}{zone}" + "}"

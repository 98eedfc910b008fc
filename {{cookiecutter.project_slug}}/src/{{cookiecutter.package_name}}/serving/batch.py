"""Scores a CSV or Parquet file, or a folder of them or of what the model takes, larger than memory:
blocks of rows stream through a bundle.

    python -m <package> batch data/mine.csv scored.parquet --bundle artifacts/bundle

Adds the columns predicted_label, confidence, abstain, model (the bundle's identity) and problem;
where values are predicted, predicted_value, interval_low, interval_high, abstain, model and
problem. A row that the model's schema refuses has no answer, and the problem in words.
"""

import argparse
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from .. import logs
from ..packaging.bundle import Bundle
from ..settings import Data, Settings
from ..task.features import FILE_COLUMN, encode
from .predictor import Champion, load, load_live

if TYPE_CHECKING:
    import pyarrow as pa  # imported where it is used, as are the stages of the data: for --help

ROWS = 1024


def arguments(parser: argparse.ArgumentParser) -> None:
    rows = "a .csv or .parquet file with the raw columns, or a folder of files"
    parser.add_argument("input", type=Path, metavar="INPUT", help=rows)
    target = "the .parquet or .csv file to write; it appears when it is complete"
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=target)
    bundle = "the bundle to score with (default: the champion in live/)"
    parser.add_argument("--bundle", type=Path, metavar="DIR", help=bundle)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """0 when every row was read. Raises ValueError that names the file which cannot be."""
    with logs.stage("batch") as log:
        live = settings.paths.live
        champion = load(Bundle.load(args.bundle), "") if args.bundle else load_live(live)
        if args.output.suffix not in (".parquet", ".csv"):
            raise ValueError(f"{args.output} must end in .parquet or .csv")
        score(champion, files_in(args.input), args.output, settings.data, log)
    return 0


def files_in(path: Path) -> list[Path]:
    """The file itself, or the tables in a folder; where it has none and the model takes files, all
    of them.
    """
    from ..data.sources import is_table

    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if path.is_file():
        return [path]
    visible = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    tables = [file for file in visible if is_table(file)]
    if not tables and (FILE_COLUMN is None or not visible):
        raise ValueError(f"{path} holds no .csv or .parquet file")
    return tables or visible


def score(
    champion: Champion, files: list[Path], output: Path, data: Data, log: logging.Logger
) -> int:
    """Writes beside the target and renames at the end; returns the number of rows. `data` says how
    missing values and numbers are written.
    """
    import pyarrow as pa
    from pyarrow.csv import CSVWriter
    from pyarrow.parquet import ParquetWriter

    tables = answered(
        champion, files, data.model_copy(update={"features": champion.bundle.card.features})
    )
    first = next(tables, None)
    if first is None:
        raise ValueError(f"{files[0]}: no rows to score")
    if first["problem"].null_count == 0:
        raise ValueError(f"no row of {files[0]} can be scored: {first['problem'][0]}")
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.tmp")
    writing = CSVWriter if output.suffix == ".csv" else ParquetWriter
    rows = problems = 0
    try:
        with writing(draft, first.schema) as writer:
            for table in logs.progress(chain([first], tables), f"%d times {ROWS} rows scored"):
                # A block without answers lacks their columns.
                whole = pa.concat_tables([first.slice(0, 0), table], promote_options="default")
                writer.write_table(whole)
                rows += table.num_rows
                problems += table.num_rows - table["problem"].null_count
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    fields = {"rows": rows, "problems": problems, "bundle": champion.bundle.identity}
    log.info("%d rows scored to %s", rows - problems, output, extra={"fields": fields})
    if problems:
        log.warning("%d rows have no answer: see the column `problem`", problems)
    return rows


def answered(champion: Champion, files: list[Path], data: Data) -> "Iterator[pa.Table]":
    """Arrow tables of up to ROWS rows, each as it came with the added columns."""
    import pyarrow as pa

    from ..data.sources import Dialect, blocks, is_table
    from ..task.schema import columns

    if is_table(files[0]):
        written = {k: v for k, v in data.source.items() if k in Dialect._fields}
        wanted = [*columns(data)]
        for path in files:
            first = 0
            for table in blocks(path, Dialect(**written), wanted, ROWS):
                where = f"{path}, rows {first} to {first + len(table) - 1}"
                yield with_answers(champion, data, table, where)
                first += len(table)
        return
    for start in range(0, len(files), ROWS):
        part = files[start : start + ROWS]
        contents = [path.read_bytes() for path in part]
        table = pa.table({"file": [str(path) for path in part], FILE_COLUMN: contents})
        where = f"files {part[0]} to {part[-1]}"
        yield with_answers(champion, data, table, where).drop_columns(FILE_COLUMN)


def with_answers(champion: Champion, data: Data, table: "pa.Table", where: str) -> "pa.Table":
    """The table with the answers on its valid rows, and what is wrong with the others."""
    import pandas as pd
    import pyarrow as pa

    from ..data.ingest import typed
    from ..data.validate import wrong_rows

    bundle = champion.bundle
    rows = typed(table.to_pandas(integer_object_nulls=True), data)
    problem = wrong_rows(rows, data)
    # Without a wrong value among them, what is left of a column may be numbers.
    valid = typed(rows.drop(problem.index), data) if len(problem) else rows
    answers = pd.DataFrame(index=rows.index[:0])
    if len(valid):
        try:
            inputs = encode(
                {str(k): v for k, v in valid.to_dict("list").items()}, champion.features
            )
            decided = champion.predict(inputs).answers
        except KeyError as error:
            raise ValueError(f"{where}: the column {error} is missing") from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        given = bundle.kind.columns(decided, bundle.card.labels)
        answers = pd.DataFrame({**given, "abstain": decided.abstain}, index=valid.index)
    added = answers.reindex(rows.index).assign(
        model=bundle.identity, problem=problem.reindex(rows.index).astype("str")
    )
    for name, values in added.items():
        if name in table.column_names:
            raise ValueError(f"{where}: the column {name!r} is there already: rename it")
        table = table.append_column(str(name), pa.Array.from_pandas(values))
    return table

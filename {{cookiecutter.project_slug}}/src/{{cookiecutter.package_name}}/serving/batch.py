"""Scores a Parquet file, or a folder of them, larger than memory: record batches stream through a
bundle.

    python -m <package> batch data/splits/test.parquet scored.parquet --bundle artifacts/bundle

Adds the columns predicted_label, confidence, abstain and model (the bundle's identity); where
values are predicted, predicted_value, interval_low, interval_high, abstain and model.
"""

import argparse
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from .. import logs
from ..packaging.bundle import Bundle
from ..settings import Settings
from ..task.features import encode
from .predictor import Champion, load, load_live

ROWS = 1024
READ_BYTES = 1 << 20


def arguments(parser: argparse.ArgumentParser) -> None:
    rows = "a Parquet file, or a folder of them, with the raw columns"
    parser.add_argument("input", type=Path, metavar="INPUT", help=rows)
    target = "the Parquet file to write; it appears when it is complete"
    parser.add_argument("output", type=Path, metavar="OUTPUT", help=target)
    bundle = "the bundle to score with (default: the champion in live/)"
    parser.add_argument("--bundle", type=Path, metavar="DIR", help=bundle)


def run(settings: Settings, args: argparse.Namespace) -> int:
    """0 when every row was scored. Raises ValueError that names the file and the rows which cannot
    be.
    """
    with logs.stage("batch") as log:
        live = settings.paths.live
        champion = load(Bundle.load(args.bundle), "") if args.bundle else load_live(live)
        files = sorted(args.input.glob("*.parquet")) if args.input.is_dir() else [args.input]
        if not files or not all(file.is_file() for file in files):
            raise ValueError(f"{args.input}: no such Parquet file or folder of Parquet files")
        score(champion, files, args.output, log)
    return 0


def score(champion: Champion, files: list[Path], output: Path, log: logging.Logger) -> int:
    """Writes beside the target and renames at the end; returns the number of rows."""
    import pyarrow.parquet as pq

    tables, rows = _scored(champion, files), 0
    first = next(tables, None)
    if first is None:
        raise ValueError(f"{files[0].parent}: no rows to score")
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.tmp")
    try:
        with pq.ParquetWriter(draft, first.schema) as writer:
            for table in logs.progress(chain([first], tables), f"%d times {ROWS} rows scored"):
                writer.write_table(table)
                rows += table.num_rows
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)
    fields = {"rows": rows, "bundle": champion.bundle.identity}
    log.info("%d rows scored to %s", rows, output, extra={"fields": fields})
    return rows


def _scored(champion: Champion, files: list[Path]) -> Iterator[Any]:
    """Arrow tables of up to ROWS rows with the added columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        first = 0
        try:
            file = pq.ParquetFile(path, buffer_size=READ_BYTES)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a Parquet file: {error}") from None
        with file:
            for batch in file.iter_batches(ROWS):
                where = f"{path}, rows {first} to {first + batch.num_rows - 1}"
                yield _add(champion, batch, where)
                first += batch.num_rows


def _add(champion: Champion, batch: Any, where: str) -> Any:
    import pyarrow as pa

    bundle, table = champion.bundle, pa.Table.from_batches([batch])
    try:
        answers = champion.predict(encode(batch.to_pydict(), champion.features)).answers
    except KeyError as error:
        raise ValueError(f"{where}: the column {error} is missing") from None
    except (ValueError, TypeError, OSError) as error:
        raise ValueError(f"{where}: cannot be read: {error}") from None
    columns = bundle.kind.columns(answers, bundle.card.labels)
    columns |= {"abstain": answers.abstain, "model": [bundle.identity] * len(answers.abstain)}
    for name, values in columns.items():
        if name in table.column_names:
            raise ValueError(f"{where}: the column {name!r} is there already: rename it")
        table = table.append_column(name, pa.array(values))
    return table

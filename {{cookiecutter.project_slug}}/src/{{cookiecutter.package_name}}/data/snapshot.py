"""Reads the snapshot chunk by chunk: memory depends on the chunk, not on the number of rows."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

CHUNK_ROWS = 32_768
CHUNK_BYTES = 64 * 2**20  # rows that hold files are large: fewer of them at a time


def chunks(path: Path, columns: list[str] | None = None) -> Iterator[tuple[int, pa.Table]]:
    """The number of the first row, counted from 0, and the rows of each chunk, in order."""
    # One reader for the whole file would hold all that it has read: memory stays flat with one per
    # row group. The buffer lets it read a column of large values piece by piece.
    with pq.ParquetFile(path, buffer_size=2**20) as file:
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(i).total_byte_size for i in groups)
        rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES * file.metadata.num_rows // max(1, size)))
        start = 0
        for group in groups:
            for batch in file.iter_batches(
                rows, row_groups=[group], columns=columns, use_threads=False
            ):
                yield start, pa.Table.from_batches([batch])
                start += batch.num_rows

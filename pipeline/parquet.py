"""Parquet files of which all is wanted."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A table from the bytes of a file.

    Not by `pyarrow.parquet.read_table`: its threads outlive the call, and with a Python file below them the process
    aborted at its end in one run of ten (pyarrow 25, "terminate called without an active exception").

    Args:
      data: of the file.
      columns: those of them that are there; all by default.

    Raises:
      pyarrow.ArrowException: the bytes are no whole Parquet file.
    """
    return pq.ParquetFile(pa.BufferReader(data)).read(None if columns is None else list(columns), use_threads=False)

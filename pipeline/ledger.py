"""The availability ledger: every attempt to get a clip's media, appended, never changed.

Many small complete Parquet files, `ledger/<run>/<writer>-<seq>.parquet`: kill -9 loses the rows since the last flush.
The order of attempts is (run, attempt), never the clock.
"""

import time
import uuid

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from mbt.pipeline import storage

FOLDER = "ledger"
FLUSH_ROWS = 1000
FLUSH_SECONDS = 30.0

ATTEMPTS = pa.schema(
    [
        ("attempt_id", pa.string()),
        ("clip_id", pa.string()),
        ("run", pa.int32()),
        ("attempt", pa.int32()),
        ("time", pa.timestamp("us", "UTC")),
        ("source", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("bytes", pa.int64()),
        ("digest", pa.string()),  # SHA-256 of the media, hexadecimal
        ("media", pa.string()),  # relative to ROOT, or a local path
        ("signature", pa.string()),  # size and modification time of a local file
        ("tools", pa.string()),
    ]
)
_STATE_COLUMNS = ["clip_id", "run", "attempt", "source", "outcome", "reason", "detail", "digest", "media", "signature"]


def new_run(root: str) -> int:
    """The number of the run that starts now."""
    return max((int(name) for name in storage.folders(storage.join(root, FOLDER)) if name.isdigit()), default=0) + 1


class Writer:
    """Appends the attempts of one worker to the ledger."""

    def __init__(self, root: str, run: int):
        self._folder = storage.join(root, FOLDER, f"{run:06d}")
        self._run = run
        self._name = uuid.uuid4().hex[:12]
        self._rows: list[dict] = []
        self._files = 0
        self._flushed = time.monotonic()

    def append(self, **row) -> None:
        """Adds an attempt: the columns of `ATTEMPTS` that depend on it."""
        now = time.time_ns() // 1000
        self._rows.append({"attempt_id": uuid.uuid4().hex, "run": self._run, "time": now} | row)
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes what has gathered as one complete file."""
        self._flushed = time.monotonic()
        if not self._rows:
            return
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(self._rows, ATTEMPTS), sink, compression="zstd")
        storage.write(
            storage.join(self._folder, f"{self._name}-{self._files:05d}.parquet"), sink.getvalue().to_pybytes()
        )
        self._files += 1
        self._rows = []


def state(root: str) -> pa.Table:
    """The newest attempt of every clip that was ever tried; columns as in `ATTEMPTS`, without times and tools."""
    folder = storage.join(root, FOLDER)
    parts = []
    for run in storage.folders(folder):
        for name in sorted(storage.sizes(storage.join(folder, run))):
            if name.endswith(".parquet"):
                with FileSystems.open(storage.join(folder, run, name)) as file:
                    parts.append(pq.read_table(file, columns=_STATE_COLUMNS))
    if not parts:
        return ATTEMPTS.empty_table().select(_STATE_COLUMNS)
    table = pa.concat_tables(parts)
    order = pc.sort_indices(table, [("clip_id", "ascending"), ("run", "descending"), ("attempt", "descending")])
    ids = pc.take(table["clip_id"], order).combine_chunks()
    if not len(ids):
        return table
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(ids[1:], ids[:-1])])
    return table.take(pc.filter(order, first))

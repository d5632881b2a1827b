"""The availability ledger: every attempt to get a clip's media, appended, never changed.

Many small complete Parquet files, `ledger/<run>/<writer>-<seq>.parquet`: kill -9 loses the rows since the last flush.
A writer that comes to its end puts its small files together in one, which is whole before they go: a slow campaign of
weeks would leave a million. A row that is in two files, because its writer was killed there, is the same attempt.
The order of attempts is (run, attempt), never the clock. An engine may do a piece of work twice in one run, where a
worker died: then the same numbers come twice, and of such a round of attempts the one that got the media counts.
"""

import concurrent.futures
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mbt.pipeline import breaker, parquet, storage, storms
from mbt.schemas.clip import Outcome

FOLDER = "ledger"
FLUSH_ROWS = 1000
FLUSH_SECONDS = 30.0
_READ_AT_ONCE = 32

ATTEMPTS = pa.schema(
    [
        ("attempt_id", pa.string()),
        ("clip_id", pa.string()),
        ("run", pa.int32()),
        ("attempt", pa.int32()),
        ("time", pa.timestamp("us", "UTC")),
        ("source", pa.string()),
        ("start_us", pa.int64()),
        ("end_us", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("bytes", pa.int64()),
        ("digest", pa.string()),  # SHA-256 of the media, hexadecimal
        ("media", pa.string()),  # relative to ROOT, or a local path
        ("media_start_us", pa.int64()),  # which time of the source is the media's zero
        ("signature", pa.string()),  # size and modification time of a local file; or `RELEASED`
        ("tools", pa.string()),
        ("rule", pa.int32()),  # of what is unusable: version of the rules that say so; 1 where that is not said
    ]
)
DAYS_OF_DOUBT = 3
# A run that fetches a clip again numbers those attempts from the next multiple of this, far above any retries.
ROUND = 1000
RELEASED = "released"  # signature of media that were deleted once they were in a shard

_STATE_COLUMNS = [
    *("clip_id", "run", "attempt", "time", "source", "start_us", "end_us", "outcome", "reason", "detail"),
    *("digest", "media", "media_start_us", "signature", "rule"),
]


def new_run(root: str) -> int:
    """The number of the run that starts now."""
    return max((int(name) for name in storage.folders(storage.join(root, FOLDER)) if name.isdigit()), default=0) + 1


class Writer:
    """Appends the attempts of one worker to the ledger; thread-safe."""

    def __init__(self, root: str, run: int):
        self._folder = storage.join(root, FOLDER, f"{run:06d}")
        self._run = run
        self._name = uuid.uuid4().hex[:12]
        self._rows: list[dict] = []
        self._files = 0
        self._small: list[tuple[str, list[dict]]] = []  # paths of files that are not full, with their rows
        self._lock = threading.Lock()  # of the rows
        self._flushing = threading.Lock()
        self._closed = threading.Event()
        self._flusher = threading.Thread(target=self._flush_now_and_then, daemon=True)

    def __enter__(self) -> "Writer":
        self._flusher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._flusher.join()
        self.flush()
        with self._flushing:
            self._put_together()

    def append(self, **row) -> None:
        """Adds an attempt: the columns of `ATTEMPTS` that depend on it."""
        now = time.time_ns() // 1000
        with self._lock:
            self._rows.append({"attempt_id": uuid.uuid4().hex, "run": self._run, "time": now} | row)
            full = len(self._rows) >= FLUSH_ROWS
        if full:
            self.flush()

    def flush(self) -> None:
        """Writes what has gathered as one complete file."""
        with self._flushing:
            with self._lock:
                rows = list(self._rows)
            if not rows:
                return
            path = self._write(rows)
            with self._lock:  # not before: what could not be written is tried again at the next flush
                del self._rows[: len(rows)]
            if len(rows) < FLUSH_ROWS:
                self._small.append((path, rows))
            if sum(len(rows) for _, rows in self._small) >= FLUSH_ROWS:
                self._put_together()

    def _write(self, rows: list[dict]) -> str:
        """Writes a new file; returns its path."""
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, ATTEMPTS), sink, compression="zstd")
        path = storage.join(self._folder, f"{self._name}-{self._files:05d}.parquet")
        storage.write(path, sink.getvalue().to_pybytes())
        self._files += 1
        return path

    def _put_together(self) -> None:
        """Makes one file of the small ones."""
        if len(self._small) > 1:
            self._write([row for _, rows in self._small for row in rows])
            storage.delete(*(path for path, _ in self._small))
        self._small = []

    def _flush_now_and_then(self) -> None:
        while not self._closed.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except OSError:  # the next flush tries again, and the last one raises
                pass
            except storage.errors():
                pass


def state(root: str) -> pa.Table:
    """The newest attempt of every clip that was ever tried; columns as in `ATTEMPTS`, without bytes and tools.

    What was heard `in_storm` settles nothing: it is transient, whatever was said. `mostly_gone` is what few sources
    were said to be by a host that said so of most: they stay gone, and are asked for again. Else a clip of which
    nothing but `storms.DOUBT` was heard on `DAYS_OF_DOUBT` days since it was last fetched counts as gone.
    """
    table = read(root, _STATE_COLUMNS)
    found = storms.hindsight(table, _given_up(root))
    for name in ("in_storm", "mostly_gone"):
        table = table.append_column(name, pa.array(getattr(found, name)))
    if not len(table):
        return table
    order = _newest_first(table)
    ids = pc.take(table["clip_id"], order).combine_chunks()
    first = pa.concat_arrays([pa.array([True]), pc.not_equal(ids[1:], ids[:-1])])
    return _without_doubt(_unsettled(table.take(pc.filter(order, first))), table)


def storms_of(root: str, run: int) -> str:
    """The folder in which a run notes which hosts it gave up; see `breaker`."""
    return storage.join(root, FOLDER, f"{run:06d}", "storms")


def _given_up(root: str) -> dict[int, dict[str, str]]:
    """Of each run, the hosts that it gave up, with why."""
    runs = [int(name) for name in storage.folders(storage.join(root, FOLDER)) if name.isdigit()]
    with concurrent.futures.ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        found = pool.map(lambda run: breaker.read(storms_of(root, run)), runs)
        return dict(zip(runs, found, strict=True))


def _newest_first(table: pa.Table) -> pa.Array:
    """Places of the rows, clip by clip."""
    keys = table.select(["clip_id", "run", "attempt"])
    keys = keys.append_column("round", pc.divide(keys["attempt"], ROUND))
    keys = keys.append_column("fetched", pc.cast(pc.equal(table["outcome"], Outcome.OK.value), pa.int8()))
    newest = [(name, "descending") for name in ("run", "round", "fetched", "attempt")]
    return pc.sort_indices(keys, [("clip_id", "ascending"), *newest])


def read(root: str, columns: list[str] | None = None) -> pa.Table:
    """All attempts ever made, in the same order each time; a file that is damaged is named on stderr and left out."""
    folder = storage.join(root, FOLDER)
    parts = [part for run in storage.folders(folder) for part in _read_run(storage.join(folder, run), columns)]
    empty = ATTEMPTS.empty_table()
    return pa.concat_tables(parts) if parts else empty.select(columns or empty.column_names)


def _read_run(folder: str, columns: list[str] | None) -> list[pa.Table]:
    paths = [storage.join(folder, name) for name in listed(folder) if name.endswith(".parquet")]
    parts = []
    try:
        for path, data in zip(paths, _contents(paths), strict=True):
            try:
                parts.append(_as_attempts(parquet.table(data, columns), columns or ATTEMPTS.names))
            except pa.ArrowException:
                print(f"mbt-data: {path} is damaged: its attempts are not known any more", file=sys.stderr)
    except FileNotFoundError:
        return _read_run(folder, columns)  # a writer put it together with others since it was listed
    return parts


def _as_attempts(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The table with these columns; what an older version did not write yet is null."""
    for name in names:
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), ATTEMPTS.field(name).type))
    return table.select(list(names))


def _contents(paths: list[str]) -> Iterator[bytes]:
    """Of files, in order; few at a time, since a run may have thousands, and each has the latency of a store."""
    with concurrent.futures.ThreadPoolExecutor(_READ_AT_ONCE) as pool:
        for first in range(0, len(paths), _READ_AT_ONCE):
            yield from pool.map(storage.read, paths[first : first + _READ_AT_ONCE])


def listed(folder: str) -> list[str]:
    """The names of a run's files, listed until nothing changes: writers put files together.

    A listing may miss a new file, and those that it replaces.
    """
    before: list[str] | None = None
    while True:
        try:
            found = sorted(storage.sizes(folder))
        except FileNotFoundError:  # one went while it was looked at
            continue
        if found == before:
            return found
        before = found


def _unsettled(newest: pa.Table) -> pa.Table:
    """A page or bad media in the place of media, and what is said to be lost, may be errors of their server."""
    reasons = pa.array([storms.NOT_MEDIA, *storms.DAMAGED])
    bad = pc.and_(pc.equal(newest["outcome"], Outcome.UNUSABLE.value), pc.is_in(newest["reason"], reasons))
    lost = pc.or_(bad, pc.is_in(newest["outcome"], pa.array([Outcome.GONE.value, Outcome.RESTRICTED.value])))
    outcome = pc.if_else(pc.and_(newest["in_storm"], lost), Outcome.TRANSIENT.value, newest["outcome"])
    return newest.set_column(newest.column_names.index("outcome"), "outcome", outcome)


def _without_doubt(newest: pa.Table, attempts: pa.Table) -> pa.Table:
    doubted = pc.equal(newest["reason"], storms.DOUBT)
    if not pc.any(doubted).as_py():
        return newest
    ids = newest.filter(doubted)["clip_id"].combine_chunks()
    confirmed = _confirmed(attempts.filter(pc.is_in(attempts["clip_id"], ids)))
    gone = pc.and_(doubted, pc.is_in(newest["clip_id"], pa.array(sorted(confirmed), pa.string())))
    outcome = pc.if_else(gone, Outcome.GONE.value, newest["outcome"])
    return newest.set_column(newest.column_names.index("outcome"), "outcome", outcome)


def _confirmed(attempts: pa.Table) -> set[str]:
    """Clips that were doubted on enough days since they were last fetched, not counting what a storm said."""
    attempts = attempts.filter(pc.invert(attempts["in_storm"]))
    rows = attempts.select(["clip_id", "run", "attempt", "time", "outcome", "reason"]).to_pylist()
    days: dict[str, set] = {}
    for row in sorted(rows, key=_order):
        seen = days.setdefault(row["clip_id"], set())
        if row["reason"] == storms.DOUBT:
            seen.add(row["time"].date())
        elif row["outcome"] == Outcome.OK:
            seen.clear()
    return {clip_id for clip_id, seen in days.items() if len(seen) >= DAYS_OF_DOUBT}


def _order(row: dict) -> tuple:
    """As in `_newest_first`, oldest first."""
    return row["run"], row["attempt"] // ROUND, row["outcome"] == Outcome.OK, row["attempt"]

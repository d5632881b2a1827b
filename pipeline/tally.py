"""What a clip table holds, counted in one pass and in memory that does not grow with the number of clips."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mbt.schemas.clip import MICROSECONDS, Outcome

COLUMNS = ("split", "outcome", "start_us", "end_us", "labels", "length")
# Edges of the histograms' bins. Most data sets cut clips of up to 10 s; sizes go by the square root of 2.
DURATION_EDGES_S = np.array([*np.arange(0, 12.5, 0.5), 15, 20, 30, 60, 120, np.inf])
SIZE_EDGES_BYTES = np.array([0, *(1024 * 2.0 ** np.arange(0, 15.5, 0.5)), np.inf])


@dataclasses.dataclass
class SplitTally:
    """Counts of one split.

    Attributes:
      clips: annotated, per label; (labels,) int64.
      records: clips that are records, per label; (labels,) int64.
      durations: records per bin of `DURATION_EDGES_S`, by the span that was annotated.
      sizes: records per bin of `SIZE_EDGES_BYTES`.
    """

    clips: np.ndarray
    records: np.ndarray
    durations: np.ndarray
    sizes: np.ndarray


def count(batches: Iterable[pa.RecordBatch], splits: Iterable[str], labels: Sequence[str]) -> dict[str, SplitTally]:
    """Counts the rows of a clip table.

    Args:
      batches: with `COLUMNS`.
      splits: whose rows are counted.
      labels: of the snapshot; others are not counted.
    """
    tallies = {split: _empty(len(labels)) for split in splits}
    vocabulary = pa.array(labels, pa.string())
    for batch in batches:
        for split, rows in _by_split(batch, tallies):
            _add(tallies[split], rows, vocabulary)
    return tallies


def is_record(rows: pa.RecordBatch | pa.Table) -> pa.Array | pa.ChunkedArray:
    """(rows,) of bool: which of them are records."""
    return pc.equal(rows["outcome"], Outcome.OK.value)


def in_split(rows: pa.RecordBatch, split: str) -> pa.Array:
    """(rows,) of bool: which of them belong to a split."""
    return pc.equal(rows["split"], split)


def _empty(labels: int) -> SplitTally:
    bins = (len(DURATION_EDGES_S) - 1, len(SIZE_EDGES_BYTES) - 1)
    clips, records, durations, sizes = (np.zeros(size, np.int64) for size in (labels, labels, *bins))
    return SplitTally(clips=clips, records=records, durations=durations, sizes=sizes)


def _by_split(batch: pa.RecordBatch, splits: Iterable[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    for split in splits:
        rows = batch.filter(in_split(batch, split))
        if rows.num_rows:
            yield split, rows


def _add(tally: SplitTally, rows: pa.RecordBatch, vocabulary: pa.Array) -> None:
    there = rows.filter(is_record(rows))
    tally.clips += _label_counts(rows, vocabulary)
    tally.records += _label_counts(there, vocabulary)
    seconds = pc.subtract(there["end_us"], there["start_us"]).to_numpy() / MICROSECONDS
    sizes = there["length"].to_numpy(zero_copy_only=False)
    tally.durations += np.histogram(seconds, DURATION_EDGES_S)[0]
    tally.sizes += np.histogram(sizes, SIZE_EDGES_BYTES)[0]


def _label_counts(rows: pa.RecordBatch, vocabulary: pa.Array) -> np.ndarray:
    codes = pc.index_in(rows["labels"].flatten(), value_set=vocabulary)
    return np.bincount(codes.drop_null().to_numpy(), minlength=len(vocabulary))

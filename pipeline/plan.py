"""The plan: every clip row in Arrow, sorted by shard, and cut into the tasks that workers read from it.

Beam elements are row ranges of a Parquet file, so neither the job graph nor a shuffle grows with the number of clips.
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mbt.pipeline import storage
from mbt.pipeline.annotations.rows import Row
from mbt.pipeline.sources import data_path, media_id
from mbt.schemas.clip import MICROSECONDS, Outcome
from mbt.schemas.index import DIGEST_BYTES
from mbt.schemas.manifest import Dataset, Manifest

SHARD_BYTES = 256 << 20
BYTES_PER_SECOND = 600_000  # of a record, at 455 x 256; docs/performance.md
ROW_GROUP_ROWS = 4096  # a worker that wants 30 rows reads a megabyte
_CHUNK_ROWS = 512  # with more rows at a time the garbage collector takes a third of the reading

CLIPS = pa.schema(
    [
        ("file", pa.dictionary(pa.int32(), pa.string())),
        ("line", pa.int32()),
        ("id", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("start_us", pa.int64()),
        ("end_us", pa.int64()),
        ("labels", pa.list_(pa.string())),
        ("key", pa.uint64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One shard to make from a range of rows of the plan.

    Attributes:
      split: its split.
      shard: its number.
      num_shards: of the split.
      first_row: of the plan.
      num_rows: clips that belong here, with media or not.
      fingerprint: digest of every input of every record.
      identity: digest of everything but the clips that decides the bytes of a record.
      predecessor: stem of the same shard in the snapshot before, from which records are taken over; or None.
    """

    split: str
    shard: int
    num_shards: int
    first_row: int
    num_rows: int
    fingerprint: str
    identity: str
    predecessor: str | None = None

    @property
    def stem(self) -> str:
        """The shard's file name, without extension."""
        return stem(self.split, self.shard, self.num_shards, self.fingerprint)


def stem(split: str, shard: int, num_shards: int, fingerprint: str) -> str:
    """A shard's file name, without extension."""
    return f"{split}-{shard:05d}-of-{num_shards:05d}-{fingerprint}"


def fingerprint(shard_identity: str, split: str, shard: int, num_shards: int, inputs: Iterable[bytes]) -> str:
    """Digest of a shard's inputs: those of its clips, in the order of their keys, and what all clips share."""
    digest = hashlib.sha256(f"{shard_identity}\n{split}\n{shard}\n{num_shards}\n".encode())
    for clip in inputs:
        digest.update(clip)
    return digest.hexdigest()[:20]


def with_digests(row: dict, identity: str, media_root: str) -> dict:
    """A row with the digests that stand in a shard's index.

    Args:
      row: of the plan.
      identity: of the dataset.
      media_root: what paths in the records are relative to.

    Returns:
      The row with `content`, the digest of all that decides the frames and the spectrogram, and `inputs`, the digest of
      all that decides the record.
    """
    source = row["source"]
    # Where the bytes alone leave doubt, ffmpeg looks at the name's end.
    extension = os.path.splitext(row["media"] or source)[1]
    span = [row[name] - row["media_start_us"] for name in ("start_us", "end_us")]
    content = _digest([identity, row["digest"], *span, extension])
    said = [row[name] for name in ("id", "start_us", "end_us", "label_indices", "labels")]
    inputs = _digest([content.hex(), data_path(source, media_root), media_id(source), *said])
    return row | {"inputs": inputs, "content": content}


def _digest(parts: list) -> bytes:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).digest()[:DIGEST_BYTES]


def clip_key(salt: str, clip_id: str) -> int:
    """The hash that decides a clip's shard (modulo N) and its place in it."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{clip_id}".encode()).digest()[:8], "big")


def clip_table(rows: Iterable[Row], salt: str) -> pa.Table:
    """All rows as a table of schema `CLIPS`; 2 million take about 300 MB."""
    batches = []
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, _CHUNK_ROWS)):
        columns = {
            "file": [row.file for row in chunk],
            "line": [row.line for row in chunk],
            "id": [row.clip.id for row in chunk],
            "split": [row.clip.split for row in chunk],
            "source": [row.clip.source for row in chunk],
            "start_us": [row.clip.start_us for row in chunk],
            "end_us": [row.clip.end_us for row in chunk],
            "labels": [row.clip.labels for row in chunk],
            "key": [clip_key(salt, row.clip.id) for row in chunk],
            "outcome": [Outcome.INVALID if row.reason else Outcome.NOT_TRIED for row in chunk],
            "reason": [row.reason for row in chunk],
            "detail": [row.detail for row in chunk],
        }
        batches.append(pa.RecordBatch.from_pydict(columns, schema=CLIPS))
    return _without_duplicates(pa.Table.from_batches(batches, CLIPS).unify_dictionaries())


def _without_duplicates(table: pa.Table) -> pa.Table:
    """The table with all but the first valid row of each id made invalid."""
    keys = table["key"].to_numpy()
    valid = np.flatnonzero(pc.equal(table["outcome"], Outcome.NOT_TRIED.value).to_numpy())
    order = valid[np.argsort(keys[valid], kind="stable")]
    ids, lines = table["id"], table["line"]
    firsts: dict[int, int] = {}
    for before, after in zip(*_neighbours_alike(keys, order), strict=True):
        if ids[before] == ids[after]:  # and not merely the same hash
            firsts[after] = firsts.get(before, before)
    if not firsts:
        return table
    rows = np.array(sorted(firsts))
    mask = np.zeros(len(table), bool)
    mask[rows] = True
    files = table["file"]
    details = [
        _twice(ids[row].as_py(), files[row].as_py(), files[first].as_py(), lines[first].as_py())
        for row, first in sorted(firsts.items())
    ]
    values = {"outcome": Outcome.INVALID.value, "reason": "duplicate_id", "detail": pa.array(details, pa.string())}
    for name, value in values.items():
        filled = pc.replace_with_mask(table[name].combine_chunks(), pa.array(mask), value)
        table = table.set_column(table.column_names.index(name), name, filled)
    return table


def _twice(clip_id: str, file: str, first_file: str, first_line: int) -> str:
    where = f"line {first_line}" if file == first_file else f"{first_file}, line {first_line}"
    return f"{where} has the same id, {clip_id!r}"


def _neighbours_alike(keys: np.ndarray, order: np.ndarray) -> tuple[list[int], list[int]]:
    """Rows next to each other in `order` that have the same key."""
    alike = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    return order[alike].tolist(), order[alike + 1].tolist()


def num_shards(table: pa.Table) -> dict[str, int]:
    """Per split, the power of two that puts 128 to 256 MiB into a shard.

    Not more: a clip that changes costs its whole shard, and 0.2 % of clips of 10 s must not rewrite a tenth of them.
    """
    lengths = table.group_by("split").aggregate([("end_us", "sum"), ("start_us", "sum")])
    shards = {}
    for row in lengths.to_pylist():
        size = estimated_bytes(row["end_us_sum"] - row["start_us_sum"])
        shards[row["split"]] = 1 << (max(1, -(-size // SHARD_BYTES)) - 1).bit_length()
    return shards


def estimated_bytes(duration_us: int) -> int:
    """Size of records of this length altogether."""
    return duration_us * BYTES_PER_SECOND // MICROSECONDS


def labels_of(table: pa.Table) -> list[str]:
    """All labels in use, sorted."""
    names: set[str] = set()
    for chunk in table["labels"].chunks:
        names.update(pc.unique(chunk.flatten()).to_pylist())
    return sorted(names)


def with_shards(columns: dict[str, pa.ChunkedArray], dataset: Dataset) -> pa.Table:
    """The valid rows with their shard, in the order in which they stand in the shards.

    Args:
      columns: of the rows; taken out one by one, so that no two copies of all of them exist at a time.
      dataset: says how many shards a split has.
    """
    splits = pa.array(list(dataset.num_shards))
    counts = pa.array(list(dataset.num_shards.values()), pa.uint64())
    modulus = pc.take(counts, pc.index_in(columns["split"], value_set=splits)).to_numpy()
    shard = columns["key"].to_numpy() % modulus
    columns["shard"] = pa.chunked_array([pa.array(shard.astype(np.int32))])
    sorted_by = ("split", "shard", "key", "id")
    order = pc.sort_indices(
        pa.table({name: columns[name] for name in sorted_by}), sort_keys=[(name, "ascending") for name in sorted_by]
    )
    del columns["key"]
    ordered = {}
    for name in list(columns):
        ordered[name] = columns.pop(name).take(order)
        pa.default_memory_pool().release_unused()  # else the old column's pages stay with the process
    return pa.table(ordered)


def write(table: pa.Table, path: str) -> None:
    """Writes a plan, a chunk of rows at a time."""
    with storage.create(path) as file, pq.ParquetWriter(file, table.schema, compression="zstd") as writer:
        for first in range(0, max(1, len(table)), ROW_GROUP_ROWS):
            writer.write_table(table.slice(first, ROW_GROUP_ROWS), row_group_size=ROW_GROUP_ROWS)
    pa.default_memory_pool().release_unused()  # else what planning took stays with the process beside the job's own


def read_rows(path: str, first_row: int, num_rows: int) -> list[dict]:
    """A range of rows of a plan, as dicts."""
    last_group = (first_row + max(1, num_rows) - 1) // ROW_GROUP_ROWS
    with storage.open_file(path) as source:
        groups = range(first_row // ROW_GROUP_ROWS, last_group + 1)
        table = pq.ParquetFile(source).read_row_groups(list(groups))
    return table.slice(first_row % ROW_GROUP_ROWS, num_rows).to_pylist()


def tasks(table: pa.Table, dataset: Dataset, media_root: str, parent: Manifest | None = None) -> Iterator[Task]:
    """One task per shard of every split, empty shards too.

    Args:
      table: the sorted plan.
      dataset: says how many shards a split has, and how records are made.
      media_root: what paths in the records are relative to.
      parent: the snapshot whose records are taken over where they are still the same.
    """
    ranges = _shard_ranges(table)
    identity, shard_identity = dataset.identity, dataset.shard_identity
    for split in sorted(dataset.num_shards):
        total = dataset.num_shards[split]
        for shard in range(total):
            first, count = ranges.get((split, shard), (0, 0))
            inputs = _inputs(table.slice(first, count), identity, media_root)
            yield Task(
                split=split,
                shard=shard,
                num_shards=total,
                first_row=first,
                num_rows=count,
                fingerprint=fingerprint(shard_identity, split, shard, total, inputs),
                identity=identity,
                predecessor=_predecessor(parent, split, shard, total),
            )


def _predecessor(parent: Manifest | None, split: str, shard: int, total: int) -> str | None:
    shards = parent.splits[split].shards if parent and split in parent.splits else ()
    return os.path.splitext(os.path.basename(shards[shard].path))[0] if len(shards) == total else None


def _shard_ranges(table: pa.Table) -> dict[tuple[str, int], tuple[int, int]]:
    """(split, shard) to its first row and number of rows in the sorted plan."""
    counts = table.group_by(["split", "shard"], use_threads=False).aggregate([([], "count_all")])
    ranges, first = {}, 0
    for split, shard, count in sorted(
        zip(*(counts[name].to_pylist() for name in ("split", "shard", "count_all")), strict=True)
    ):
        ranges[split, shard] = (first, count)
        first += count
    return ranges


def _inputs(rows: pa.Table, identity: str, media_root: str) -> Iterator[bytes]:
    """The digest of each record's inputs."""
    names = ["id", "source", "start_us", "end_us", "label_indices", "labels", "media", "media_start_us", "digest"]
    present = rows.filter(pc.equal(rows["outcome"], Outcome.OK.value)) if len(rows) else rows
    for row in present.select(names).to_pylist():
        yield with_digests(row, identity, media_root)["inputs"]

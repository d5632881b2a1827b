"""A snapshot: which clips there are, in which shards, and why the others are not; published last."""

import collections
import contextlib
import dataclasses
import datetime
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata

import pyarrow as pa
import pyarrow.parquet as pq

from mbt.pipeline import storage
from mbt.pipeline.dataset import DatasetError
from mbt.pipeline.plan import Task
from mbt.pipeline.shard import FOLDER as SHARDS
from mbt.schemas import index as shard_index
from mbt.schemas import lineage
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import CLIPS_FILE, MANIFEST_FILE, Dataset, Manifest, Shard, Split
from mbt.schemas.statistics import Statistics

FOLDER = "snapshots"
ROWS_AT_A_TIME = 65_536
_DICTS_AT_A_TIME = 1024
_TOOLS = ("mbt-flax", "apache-beam", "imageio-ffmpeg", "numpy", "protobuf", "pyarrow")

CLIP_ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("file", pa.string()),
        ("line", pa.int32()),
        ("source", pa.string()),
        ("start_us", pa.int64()),
        ("end_us", pa.int64()),
        ("labels", pa.list_(pa.string())),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("shard", pa.int32()),
        ("record", pa.int32()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("inputs", pa.binary(shard_index.DIGEST_BYTES)),  # digest of all that the record is made from
        ("treatments", pa.list_(pa.string())),  # of a record's media, beyond the usual; see `Decoded`
        ("rule", pa.int32()),  # of what is unusable: version of the rules that say so
    ]
)


@dataclasses.dataclass
class Tally:
    """Running sums of one split."""

    shards: list[Shard] = dataclasses.field(default_factory=list)
    num_clips: int = 0
    num_records: int = 0
    lost: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    treatments: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def split(self, statistics: Statistics, labels: tuple[str, ...]) -> Split:
        """What the manifest says of the split."""
        return Split(
            shards=tuple(self.shards),
            num_clips=self.num_clips,
            num_records=self.num_records,
            lost=dict(sorted(self.lost.items())),
            treatments=dict(sorted(self.treatments.items())),
            **statistics.of_split(labels),
        )


def latest(root: str) -> Manifest | None:
    """The newest snapshot, or None; see `lineage.in_order`."""
    manifests = [found for name in storage.folders(storage.join(root, FOLDER)) if (found := read(root, name))]
    return next(reversed(lineage.in_order(manifests)), None)


def read(root: str, name: str) -> Manifest | None:
    """The manifest of a snapshot; None where it was never finished.

    Raises:
      FormatError: it is damaged.
    """
    try:
        return Manifest.from_json(storage.read(storage.join(root, FOLDER, name, MANIFEST_FILE)), name)
    except FileNotFoundError:
        return None  # never finished: it does not exist


def publish(
    root: str,
    dataset: Dataset,
    plan: pa.Table,
    invalid: pa.Table,
    results: Iterable[tuple[Task, dict]],
    *,
    statistics: Mapping[str, Statistics],
    name: str | None,
    annotations_sha256: str,
) -> tuple[Manifest, bool]:
    """Writes the clip table and then the manifest.

    Args:
      root: of the dataset.
      dataset: what is fixed.
      plan: the sorted valid rows, with what fetching gave.
      invalid: the rows that were refused.
      results: every task with its `build.summary`.
      statistics: of every split.
      name: of the snapshot; by default the time.
      annotations_sha256: digest of the annotation file.

    Raises:
      DatasetError: another snapshot has that name.

    Returns:
      The manifest, and whether it is new: where nothing differs from the newest snapshot, that one stands.
    """
    tallies = {split: Tally() for split in dataset.num_shards}
    unassigned: collections.Counter = collections.Counter()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, CLIP_ROWS, compression="zstd") as writer:
        rows = _tallied(_clip_rows(plan, invalid, results, tallies), tallies, unassigned)
        while table := _take(rows, ROWS_AT_A_TIME):
            writer.write_table(table)
    clips = sink.getvalue()
    parent = latest(root)
    created = _time_after(parent)
    manifest = Manifest(
        dataset=dataset.name,
        snapshot=name or created.strftime("%Y%m%dT%H%M%S.%fZ"),
        parent=parent.snapshot if parent else None,
        created=created.isoformat(timespec="microseconds"),
        labels=dataset.labels,
        splits={split: tally.split(statistics[split], dataset.labels) for split, tally in tallies.items()},
        annotations_sha256=annotations_sha256,
        tool_versions={tool: metadata.version(tool) for tool in _TOOLS},
        unassigned=dict(sorted(unassigned.items())),
        clips_sha256=hashlib.sha256(clips).hexdigest(),
        encoding=len(dataset.former),
    )
    # A worker that was killed may have given shards their names and not flushed these; the next found them there.
    storage.flush_folder(storage.join(root, SHARDS))
    if parent is not None and _same(parent, manifest):
        _restore(storage.join(root, FOLDER, parent.snapshot, CLIPS_FILE), clips.to_pybytes())
        return parent, False
    folder = storage.join(root, FOLDER, manifest.snapshot)
    if storage.exists(storage.join(folder, MANIFEST_FILE)):
        raise DatasetError(f"--snapshot={manifest.snapshot}: there is one of that name, and they never change")
    storage.write(storage.join(folder, CLIPS_FILE), clips.to_pybytes())
    storage.write(storage.join(folder, MANIFEST_FILE), manifest.to_json().encode())
    return manifest, True


def _restore(path: str, content: bytes) -> None:
    """Writes a file anew that was damaged, or deleted, since it was published."""
    with contextlib.suppress(OSError, *storage.errors()):
        if storage.read(path) == content:
            return
    storage.write(path, content)


def _time_after(parent: Manifest | None) -> datetime.datetime:
    """Now; or, where the clock was set back since the parent was published, the moment after that."""
    now = datetime.datetime.now(datetime.UTC)
    try:
        before = datetime.datetime.fromisoformat(parent.created) if parent else now
        return max(now, before + datetime.timedelta(microseconds=1)) if parent else now
    except (ValueError, TypeError, OverflowError):  # no time, or one without a zone: not written by us
        return now


def _same(one: Manifest, other: Manifest) -> bool:
    return (one.splits, one.labels, one.unassigned, one.clips_sha256) == (
        other.splits,
        other.labels,
        other.unassigned,
        other.clips_sha256,
    )


def _clip_rows(
    plan: pa.Table, invalid: pa.Table, results: Iterable[tuple[Task, dict]], tallies: dict[str, Tally]
) -> Iterator[dict]:
    """A row per annotated clip, in the order of the shards; the invalid ones come last."""
    for task, result in results:
        tally = tallies[task.split]
        tally.shards.append(_shard(task, result))
        places = {clip_id: place for place, clip_id in enumerate(result["ids"])}
        absent = {clip["id"]: clip for clip in result["absent"]}
        for row in plan.slice(task.first_row, task.num_rows).to_pylist():
            yield _placed(row, task.shard, result, places, absent)
    for batch in invalid.to_batches():
        yield from batch.to_pylist()


def _placed(row: dict, shard: int, result: dict, places: dict[str, int], absent: dict[str, dict]) -> dict:
    if (record := places.get(row["id"])) is not None:
        place = {"record": record, "offset": result["offsets"][record], "length": result["lengths"][record]}
        inputs = bytes.fromhex(result["inputs"][record])
        made = {"inputs": inputs, "treatments": result["treatments"].get(row["id"], []), "rule": None}
        return row | place | made | {"shard": shard, "outcome": Outcome.OK.value, "reason": "", "detail": ""}
    if (clip := absent.get(row["id"])) is not None:
        return row | clip | {"shard": shard, "inputs": bytes.fromhex(clip["inputs"])}
    return row | {"shard": shard}


def _tallied(rows: Iterable[dict], tallies: dict[str, Tally], unassigned: collections.Counter) -> Iterator[dict]:
    names = CLIP_ROWS.names
    for row in rows:
        tally = tallies.get(row["split"])
        if row["outcome"] != Outcome.OK:
            lost = unassigned if tally is None else tally.lost
            lost[f"{row['outcome']}/{row['reason']}"] += 1
        if tally is not None:
            tally.num_clips += 1
            tally.num_records += row["outcome"] == Outcome.OK
            tally.treatments.update(row.get("treatments") or ())
        yield {name: row.get(name) for name in names}


def treatments(table: pa.Table) -> dict[str, int]:
    """How many rows of a clip table have which treatment; older tables say nothing of it."""
    if "treatments" not in table.column_names:
        return {}
    words: collections.Counter = collections.Counter()
    for chunk in table["treatments"].chunks:
        words.update({word["values"]: word["counts"] for word in chunk.flatten().value_counts().to_pylist()})
    return dict(sorted(words.items()))


def _take(rows: Iterator[dict], count: int) -> pa.Table | None:
    """The next rows, in few dicts at a time: as such they take ten times the memory. None at the end."""
    batches = []
    while count and (chunk := list(itertools.islice(rows, min(count, _DICTS_AT_A_TIME)))):
        batches.append(pa.RecordBatch.from_pylist(chunk, CLIP_ROWS))
        count -= len(chunk)
    return pa.Table.from_batches(batches).combine_chunks() if batches else None


def _shard(task: Task, result: dict) -> Shard:
    return Shard(
        path=f"{SHARDS}/{task.stem}.tfrecord",
        index_path=f"{SHARDS}/{task.stem}.index",
        num_records=result["num_records"],
        bytes=result["bytes"],
        crc32c=result["crc32c"],
        index_crc32c=result["index_crc32c"],
        fingerprint=task.fingerprint,
    )


def shard(stem: str, fingerprint: str, index: shard_index.Index) -> Shard:
    """What a manifest says of a shard."""
    return Shard(
        path=f"{SHARDS}/{stem}.tfrecord",
        index_path=f"{SHARDS}/{stem}.index",
        num_records=len(index.records),
        bytes=index.shard_bytes,
        crc32c=f"{index.shard_crc32c:08x}",
        index_crc32c=f"{shard_index.file_crc32c(shard_index.dump(index)):08x}",
        fingerprint=fingerprint,
    )

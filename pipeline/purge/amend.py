"""Snapshots without some clips: new shards, clip tables and manifests, of which a reader sees the old or the new."""

import dataclasses
import datetime
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mbt.pipeline import plan, shard_file, snapshot, storage, tombstones
from mbt.pipeline.errors import IncompleteError
from mbt.pipeline.purge.find import Found, opened
from mbt.pipeline.purge.find import table as read_table
from mbt.pipeline.shard_file import Entry, ShardFile
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import (
    CLIPS_FILE,
    MANIFEST_FILE,
    Amendment,
    Dataset,
    Manifest,
    Shard,
    ShardChange,
    Split,
)
from mbt.schemas.statistics import Statistics
from mbt.schemas.tfrecord import CorruptRecordError

_KEPT = ("id", "split", "file", "line", "shard")  # columns of a purged clip's row that stay
_PLACE = ("record", "offset", "length", "inputs")  # columns that are null where there is no record
_LOST = f"{Outcome.INVALID}/{tombstones.PURGED}"  # as a manifest counts them


class Amender:
    """Takes clips out of snapshots."""

    def __init__(
        self,
        root: str,
        dataset: Dataset,
        clip_ids: frozenset[str],
        reason: str,
        indices: Mapping[str, shard_index.Index],
    ):
        """Prepares to.

        Args:
          root: of the dataset.
          dataset: what is fixed.
          clip_ids: to take out; each has a tombstone.
          reason: of this run.
          indices: of the shards that hold one of the clips, by stem.
        """
        self._root = root
        self._dataset = dataset
        self._ids = clip_ids
        self._reason = reason
        self._indices = indices
        self._tombstones = tombstones.read(root)

    def amend(self, manifests: Sequence[Manifest], found: Found) -> frozenset[str]:
        """Amends the snapshots that were found; returns the stems of the shards that they use instead.

        Raises:
          IncompleteError: a record that must be copied is damaged, or a shard is missing.
        """
        replaced = self._rewrite_shards(manifests, found)
        for manifest in manifests:
            if manifest.snapshot in found.snapshots:
                self._amend(manifest, replaced)
        return frozenset(shard_file.stem_of(shard.path) for shard in replaced.values())

    def _rewrite_shards(self, manifests: Sequence[Manifest], found: Found) -> dict[str, Shard]:
        """Writes the shards that snapshots use without the clips; returns them by the path of the old ones."""
        replaced = {}
        for manifest in manifests:
            dataset = self._dataset.as_of(manifest)
            for split, one in manifest.splits.items():
                for number, shard in enumerate(one.shards):
                    stem = shard_file.stem_of(shard.path)
                    if stem in found.shards and shard.path not in replaced:
                        replaced[shard.path] = self._rewrite(dataset, stem, split, number, len(one.shards))
        return replaced

    def _rewrite(self, dataset: Dataset, stem: str, split: str, number: int, num_shards: int) -> Shard:
        index = self._indices[stem]
        left = {clip: inputs for clip, inputs in index.inputs().items() if clip not in self._ids}
        order = sorted(left, key=lambda clip: (plan.clip_key(dataset.salt, clip), clip))
        inputs = (left[clip] for clip in order)
        fingerprint = plan.fingerprint(dataset.shard_identity, split, number, num_shards, inputs)
        new = plan.stem(split, number, num_shards, fingerprint)
        if (made := shard_file.existing(self._root, new)) is None:
            with opened(self._root, stem, index) as old:
                entries = self._entries(old, order)
                made = shard_file.write(self._root, new, entries, index_version=dataset.index_version)
        return snapshot.shard(new, fingerprint, made)

    def _entries(self, old: ShardFile, clip_ids: Iterable[str]) -> Iterator[Entry]:
        for clip_id in clip_ids:
            try:
                yield old.entry(old.places[clip_id]) if clip_id in old.places else old.absent_entry(clip_id)
            except CorruptRecordError as error:
                raise IncompleteError(
                    f"the record of clip {clip_id!r} is damaged: run mbt-data verify --repair, then this again"
                ) from error

    def _amend(self, manifest: Manifest, replaced: Mapping[str, Shard]) -> None:
        """Replaces a snapshot's table and then its manifest; what the manifest names is there at any time."""
        table = self._without(read_table(self._root, manifest), manifest, replaced)
        data = _parquet(table)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        amendment = Amendment(
            time=now,
            reason=self._reason,
            num_clips=_num_purged(table) - _num_said(manifest),
            shards=tuple(_changes(manifest, replaced)),
            old_clips_sha256=manifest.clips_sha256,
            new_clips_sha256=hashlib.sha256(data).hexdigest(),
        )
        amended = dataclasses.replace(
            manifest,
            splits={
                name: self._split(name, split, table, replaced, manifest.labels)
                for name, split in manifest.splits.items()
            },
            unassigned=_lost(table.filter(_is_unassigned(table, manifest))),
            clips_sha256=amendment.new_clips_sha256,
            amended=(*manifest.amended, amendment),
        )
        folder = storage.join(self._root, snapshot.FOLDER, manifest.snapshot)
        storage.write(storage.join(folder, CLIPS_FILE), data)
        storage.write(storage.join(folder, MANIFEST_FILE), amended.to_json().encode())

    def _split(
        self, name: str, split: Split, table: pa.Table, replaced: Mapping[str, Shard], labels: tuple[str, ...]
    ) -> Split:
        shards = tuple(replaced.get(shard.path, shard) for shard in split.shards)
        changed = dataclasses.replace(
            split,
            shards=shards,
            num_records=sum(shard.num_records for shard in shards),
            lost=_lost(table.filter(pc.equal(table["split"], name))),
            treatments=snapshot.treatments(table.filter(pc.equal(table["split"], name))),
        )
        if shards == split.shards:
            return changed
        statistics = Statistics()
        for shard in shards:
            index = shard_index.load(storage.read(storage.join(self._root, shard.index_path)))
            statistics.add(Statistics.of(index))
        return dataclasses.replace(changed, **statistics.of_split(labels))

    def _without(self, table: pa.Table, manifest: Manifest, replaced: Mapping[str, Shard]) -> pa.Table:
        """The clip table with the clips' rows emptied, and with the places that the other records have now."""
        places: dict[tuple[str, int], dict[str, tuple[int, int, int]]] = {}
        for split, one in manifest.splits.items():
            for number, shard in enumerate(one.shards):
                if shard.path in replaced:
                    places[split, number] = self._places(replaced[shard.path])
        is_purged = pc.is_in(table["id"], pa.array(sorted(self._ids), pa.string()))
        in_shards = [
            pc.fill_null(pc.and_(pc.equal(table["split"], split), pc.equal(table["shard"], number)), False)
            for split, number in places
        ]
        touched = is_purged
        for mask in in_shards:
            touched = pc.or_(touched, mask)
        rows = pc.indices_nonzero(touched).to_pylist()
        changed = [self._changed(row, places) for row in table.take(pa.array(rows, pa.int64())).to_pylist()]
        return _with_rows(table, rows, pa.Table.from_pylist(changed, table.schema))

    def _places(self, shard: Shard) -> dict[str, tuple[int, int, int]]:
        index = shard_index.load(storage.read(storage.join(self._root, shard.index_path)))
        ranges = index.records[["offset", "length"]].tolist()
        return {clip: (place, *ranges[place]) for place, clip in enumerate(index.ids)}

    def _changed(self, row: dict, places: dict[tuple[str, int], dict[str, tuple[int, int, int]]]) -> dict:
        if row["id"] in self._ids:
            why = self._tombstones[row["id"]]["reason"]
            ended = {"outcome": Outcome.INVALID.value, "reason": tombstones.PURGED, "detail": why}
            empty = {
                name: None if name in _PLACE else type(value)() for name, value in row.items() if name not in _KEPT
            }
            return row | empty | ended
        place = places[row["split"], row["shard"]].get(row["id"])
        return row if place is None else row | dict(zip(("record", "offset", "length"), place, strict=True))


def _changes(manifest: Manifest, replaced: Mapping[str, Shard]) -> Iterator[ShardChange]:
    for split in manifest.splits.values():
        for shard in split.shards:
            if (new := replaced.get(shard.path)) is not None:
                yield ShardChange(
                    old_path=shard.path, old_crc32c=shard.crc32c, new_path=new.path, new_crc32c=new.crc32c
                )


def _num_purged(table: pa.Table) -> int:
    return pc.sum(pc.equal(table["reason"], tombstones.PURGED)).as_py() or 0


def _num_said(manifest: Manifest) -> int:
    """Purged clips by the manifest: its table may be the new one already."""
    counts = [split.lost for split in manifest.splits.values()] + [manifest.unassigned]
    return sum(lost.get(_LOST, 0) for lost in counts)


def _lost(rows: pa.Table) -> dict[str, int]:
    groups = rows.group_by(["outcome", "reason"]).aggregate([([], "count_all")]).to_pylist()
    lost = {f"{row['outcome']}/{row['reason']}": row["count_all"] for row in groups if row["outcome"] != Outcome.OK}
    return dict(sorted(lost.items()))


def _is_unassigned(table: pa.Table, manifest: Manifest) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(table["split"], pa.array(list(manifest.splits), pa.string())))


def _with_rows(table: pa.Table, rows: list[int], changed: pa.Table) -> pa.Table:
    """The table with some of its rows replaced."""
    order = np.arange(len(table))
    order[rows] = len(table) + np.arange(len(rows))
    return pa.concat_tables([table, changed]).take(pa.array(order))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=snapshot.ROWS_AT_A_TIME)
    return sink.getvalue().to_pybytes()

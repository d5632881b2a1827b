"""`mbt-data purge`: removes clips from media, shards, clip tables and reports of every snapshot, and proves it.

The order is what makes it safe to kill: first the tombstones, so that no build brings a clip back; then the needles,
by which the proof can still search when the bytes are gone; then media and reports are deleted, which are found only by
what the clip tables still say; then come new shards, and each snapshot's table and manifest, which changes at once from
the old shards to the new; and only then are the old shards deleted. Run again, it does what is left.
"""

import concurrent.futures
import dataclasses
import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mbt.pipeline import dataset as datasets
from mbt.pipeline import ledger, media, needles, parquet, plan, shard_file, snapshot, storage, tombstones, writer
from mbt.pipeline.errors import IncompleteError, RefusedError
from mbt.pipeline.shard_file import Entry, ShardFile
from mbt.pipeline.sources import stays_in_place
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import (
    CLIPS_FILE,
    MANIFEST_FILE,
    Amendment,
    Dataset,
    FormatError,
    Manifest,
    Shard,
    ShardChange,
    Split,
)
from mbt.schemas.statistics import Statistics
from mbt.schemas.tfrecord import CorruptRecordError

_KEPT = ("id", "split", "file", "line", "shard")  # columns of a purged clip's row that stay
_THREADS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class PurgeOptions:
    """What `mbt-data purge` was told.

    Attributes:
      root: of the dataset.
      clip_ids: to remove.
      reason: for tombstones and manifests.
      delete: False to say only what would be done.
      take_over: from a writer that crashed.
    """

    root: str
    clip_ids: frozenset[str]
    reason: str
    delete: bool
    take_over: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What there is of the clips.

    Attributes:
      snapshots: names of those that must be amended.
      shards: stems of the shards that hold one of them, used or not, to the ids that they hold.
      media: files relative to ROOT, with their sizes.
      reports: other files in those snapshots, which may show a clip; relative to ROOT.
      unknown: ids that nothing here knows; they get tombstones too.
      outside: local sources of the clips; they are not in ROOT and stay.
      overlapping: other clips that show a part of the same time of the same source.
    """

    snapshots: tuple[str, ...]
    shards: dict[str, frozenset[str]]
    media: dict[str, int]
    reports: tuple[str, ...]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]
    overlapping: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What a search of all files below ROOT gave.

    Attributes:
      num_files: that were searched.
      bytes: of them.
      searched: number of pieces by what they are.
      plain: pieces so uniform that they cannot be told from others', such as silence; not searched for.
      left: pieces that are still there, and should not be.
      shared: clips or media files, not purged, that hold the very same pieces, to how many.
    """

    num_files: int
    bytes: int
    searched: dict[str, int]
    plain: int
    left: tuple[needles.Hit, ...]
    shared: dict[str, int]


def purge(options: PurgeOptions) -> tuple[Found, Proof | None]:
    """Removes clips; says what there was of them, and the proof that nothing is left (None of a dry run).

    Raises:
      RefusedError: no dataset, another writer, a damaged snapshot or shard; nothing was changed.
      IncompleteError: a record that must be copied turned out damaged; the old shards are still there.
    """
    try:
        dataset = datasets.read(options.root)
        if dataset is None:
            raise RefusedError(f"--output={options.root} holds no dataset")
        with writer.hold(options.root, take_over=options.take_over):
            return _Purge(options, dataset).run()
    except (datasets.DatasetError, writer.WriterError) as error:
        raise RefusedError(str(error)) from error


class _Purge:
    """One run: what its stages share."""

    def __init__(self, options: PurgeOptions, dataset: Dataset):
        self._options = options
        self._root = options.root
        self._dataset = dataset
        # Also those of a purge that was interrupted: what it began ends here.
        self._ids = options.clip_ids | tombstones.read(options.root).keys()
        self._indices: dict[str, shard_index.Index] = {}  # of shards that hold one of the clips

    def run(self) -> tuple[Found, Proof | None]:
        """All stages in turn."""
        manifests = self._manifests()
        found = self._find(manifests)
        if not self._options.delete:
            return found, None
        tombstones.add(self._root, self._ids, self._options.reason)
        wanted = needles.load(self._root) + needles.Needles.of(self._pieces(found))
        needles.save(self._root, wanted)
        storage.delete(*(storage.join(self._root, path) for path in (*found.media, *found.reports)))
        replaced = self._rewrite_shards(manifests, found)
        for manifest in manifests:
            if manifest.snapshot in found.snapshots:
                self._amend(manifest, replaced)
        self._delete(found, {shard_file.stem_of(shard.path) for shard in replaced.values()})
        proof = self._search(wanted)
        if not proof.left:
            needles.forget(self._root)
        return found, proof

    # What there is.

    def _manifests(self) -> list[Manifest]:
        try:
            names = storage.folders(storage.join(self._root, snapshot.FOLDER))
            return [manifest for name in names if (manifest := snapshot.read(self._root, name))]
        except (FormatError, UnicodeDecodeError, TypeError) as error:
            raise RefusedError(f"a snapshot cannot be read: {error}. See mbt-data verify --snapshot=all") from error

    def _find(self, manifests: list[Manifest]) -> Found:
        rows: dict[str, list[dict]] = {manifest.snapshot: self._rows(manifest) for manifest in manifests}
        held = tuple(manifest.snapshot for manifest in manifests if self._holds(manifest, rows[manifest.snapshot]))
        every = [row for there in rows.values() for row in there]
        attempts = self._attempts()
        known = {row["id"] for row in every} | {row["clip_id"] for row in attempts}
        sources = {row["source"] for row in [*every, *attempts] if row["source"]}
        return Found(
            snapshots=held,
            shards=self._shards(manifests),
            media=self._media(every, attempts),
            reports=tuple(path for name in held for path in self._reports(name)),
            unknown=tuple(sorted(self._options.clip_ids - known)),
            outside=tuple(sorted(filter(stays_in_place, sources))),
            overlapping=self._overlapping(manifests, [row for row in every if row["source"]]),
        )

    def _holds(self, manifest: Manifest, rows: list[dict]) -> bool:
        """Whether a snapshot must be amended: it has one of the clips, or a purge stopped between its two files."""
        path = storage.join(self._root, snapshot.FOLDER, manifest.snapshot, CLIPS_FILE)
        is_as_published = hashlib.sha256(storage.read(path)).hexdigest() == manifest.clips_sha256
        if not is_as_published and not needles.exists(self._root):
            raise RefusedError(f"{path} is damaged: its digest is not the manifest's")
        return not is_as_published or any(row["reason"] != tombstones.PURGED for row in rows)

    def _table(self, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
        path = storage.join(self._root, snapshot.FOLDER, manifest.snapshot, CLIPS_FILE)
        try:
            return parquet.table(storage.read(path), columns)
        except (OSError, pa.ArrowException) as error:
            raise RefusedError(f"{path} cannot be read, so its clips are not known: {error}") from error

    def _rows(self, manifest: Manifest) -> list[dict]:
        """The rows of the clips in a snapshot."""
        table = self._table(manifest, ["id", "source", "start_us", "end_us", "reason"])
        return table.filter(pc.is_in(table["id"], pa.array(sorted(self._ids), pa.string()))).to_pylist()

    def _attempts(self) -> list[dict]:
        table = ledger.read(self._root, ["clip_id", "source", "media"])
        return table.filter(pc.is_in(table["clip_id"], pa.array(sorted(self._ids), pa.string()))).to_pylist()

    def _shards(self, manifests: list[Manifest]) -> dict[str, frozenset[str]]:
        """All shards in the pool that hold a clip, of snapshots or not; an orphan that tells nothing counts as one."""
        used = {
            shard_file.stem_of(shard.path)
            for manifest in manifests
            for split in manifest.splits.values()
            for shard in split.shards
        }
        names = storage.sizes(storage.join(self._root, shard_file.FOLDER))
        held: dict[str, frozenset[str]] = {}
        for stem in sorted({os.path.splitext(name)[0] for name in names}):
            try:
                path = storage.join(self._root, shard_file.FOLDER, stem + ".index")
                index = shard_index.load(storage.read(path))
            except (FileNotFoundError, shard_index.CorruptIndexError) as error:
                if stem in used:
                    raise RefusedError(f"shard {stem} is damaged ({error}): run mbt-data verify --repair") from error
                held[stem] = frozenset()
                continue
            if there := self._ids & index.inputs().keys():
                held[stem] = frozenset(there)
                self._indices[stem] = index
        return held

    def _media(self, rows: list[dict], attempts: list[dict]) -> dict[str, int]:
        """Files of the media store that were made for the clips, also those that the ledger does not know."""
        keys = {media.key(row["source"], row["start_us"], row["end_us"]) for row in rows if row["source"]}
        named = {row["media"] for row in attempts}
        below = storage.join(self._root, media.FOLDER)
        return {
            path: file.bytes
            for file in storage.files(below)
            if (path := f"{media.FOLDER}/{file.path}") in named or os.path.basename(path).partition("-")[0] in keys
        }

    def _reports(self, name: str) -> Iterator[str]:
        for file in storage.files(storage.join(self._root, snapshot.FOLDER, name)):
            if file.path not in (CLIPS_FILE, MANIFEST_FILE):
                yield f"{snapshot.FOLDER}/{name}/{file.path}"

    def _overlapping(self, manifests: list[Manifest], rows: list[dict]) -> tuple[str, ...]:
        spans = {(row["source"], row["start_us"], row["end_us"]) for row in rows}
        sources = pa.array(sorted({source for source, _, _ in spans}), pa.string())
        found = set()
        for manifest in manifests if spans else ():
            table = self._table(manifest, ["id", "source", "start_us", "end_us", "outcome"])
            for row in table.filter(pc.is_in(table["source"], sources)).to_pylist():
                if row["outcome"] == Outcome.OK and row["id"] not in self._ids and _overlaps(row, spans):
                    found.add(row["id"])
        return tuple(sorted(found))

    def _pieces(self, found: Found) -> Iterator[tuple[int, bytes]]:
        for stem, index in self._indices.items():
            with self._open(stem, index) as old:
                for clip_id in sorted(found.shards[stem] & old.places.keys()):
                    yield from _pieces(old, old.places[clip_id])
        for path in found.media:
            with storage.open_file(storage.join(self._root, path)) as file:
                yield from needles.blocks(file)

    def _open(self, stem: str, index: shard_index.Index) -> ShardFile:
        try:
            return ShardFile(self._root, stem, index)
        except FileNotFoundError as error:
            raise IncompleteError(f"shard {stem} is missing: run mbt-data verify --repair, then this again") from error

    # New shards, tables and manifests.

    def _rewrite_shards(self, manifests: list[Manifest], found: Found) -> dict[str, Shard]:
        """Writes the shards that snapshots use without the clips; returns them by the path of the old ones."""
        replaced = {}
        for manifest in manifests:
            for split, one in manifest.splits.items():
                for number, shard in enumerate(one.shards):
                    stem = shard_file.stem_of(shard.path)
                    if stem in found.shards and shard.path not in replaced:
                        replaced[shard.path] = self._rewrite(stem, split, number, len(one.shards))
        return replaced

    def _rewrite(self, stem: str, split: str, number: int, num_shards: int) -> Shard:
        index = self._indices[stem]
        left = {clip: inputs for clip, inputs in index.inputs().items() if clip not in self._ids}
        order = sorted(left, key=lambda clip: (plan.clip_key(self._dataset.salt, clip), clip))
        identity = datasets.identity(self._dataset)
        fingerprint = plan.fingerprint(identity, split, number, num_shards, (left[clip] for clip in order))
        new = plan.stem(split, number, num_shards, fingerprint)
        if (made := shard_file.existing(self._root, new)) is None:
            with self._open(stem, index) as old:
                made = shard_file.write(self._root, new, self._entries(old, order))
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
        table = self._without(self._table(manifest), manifest, replaced)
        data = _parquet(table)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        changes = [
            ShardChange(
                old_path=shard.path,
                old_crc32c=shard.crc32c,
                new_path=replaced[shard.path].path,
                new_crc32c=replaced[shard.path].crc32c,
            )
            for split in manifest.splits.values()
            for shard in split.shards
            if shard.path in replaced
        ]
        amendment = Amendment(
            time=now,
            reason=self._options.reason,
            num_clips=pc.sum(pc.is_in(table["id"], pa.array(sorted(self._ids), pa.string()))).as_py() or 0,
            shards=tuple(changes),
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
            ended = {"outcome": Outcome.INVALID.value, "reason": tombstones.PURGED, "detail": self._options.reason}
            return {name: row[name] if name in _KEPT else _empty(row[name]) for name in row} | ended
        place = places[row["split"], row["shard"]].get(row["id"])
        return row if place is None else row | dict(zip(("record", "offset", "length"), place, strict=True))

    # Deleting, and the proof.

    def _delete(self, found: Found, new: set[str]) -> None:
        for stem in found.shards.keys() - new:
            for extension in (".index", ".tfrecord"):  # a shard is there when its index is
                storage.delete(storage.join(self._root, shard_file.FOLDER, stem + extension))
        storage.delete_folder(storage.join(self._root, "tmp"))
        # Nobody else writes, so what is half written is a killed command's.
        parts = [file.path for file in storage.files(self._root) if file.path.endswith(storage.PART)]
        storage.delete(*(storage.join(self._root, path) for path in parts))

    def _search(self, wanted: needles.Needles) -> Proof:
        files = list(storage.files(self._root))
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda file: wanted.search(self._root, file.path), files)
            hits = [hit for there in found for hit in there]
        owners = [(hit, self._owner(hit)) for hit in hits]
        shared: dict[str, int] = {}
        for _, owner in owners:
            if owner is not None:
                shared[owner] = shared.get(owner, 0) + 1
        return Proof(
            num_files=len(files),
            bytes=sum(file.bytes for file in files),
            searched=wanted.counts(),
            plain=wanted.plain,
            left=tuple(hit for hit, owner in owners if owner is None),
            shared=shared,
        )

    def _owner(self, hit: needles.Hit) -> str | None:
        """Whose bytes these are, if not the purged clips': another clip may show the very same frame."""
        folder, _, name = hit.path.partition("/")
        if folder == media.FOLDER and not name.endswith(storage.PART):
            return hit.path
        if folder != shard_file.FOLDER or not name.endswith(".tfrecord"):
            return None
        index = shard_index.load(storage.read(storage.join(self._root, os.path.splitext(hit.path)[0] + ".index")))
        place = int(index.records["offset"].searchsorted(hit.offset, side="right")) - 1
        return f"clip {index.ids[place]}" if place >= 0 and index.ids[place] not in self._ids else None


def _overlaps(row: dict, spans: Iterable[tuple[str, int, int]]) -> bool:
    return any(
        row["source"] == source and row["start_us"] < end_us and start_us < row["end_us"]
        for source, start_us, end_us in spans
    )


def _pieces(old: ShardFile, place: int) -> Iterator[tuple[int, bytes]]:
    """Frames and spectrogram steps of a record; of one that is damaged, those that are whole or not."""
    for kind, pieces in ((needles.FRAME, old.index.frames(place)), (needles.STEP, old.index.steps(place))):
        for piece in pieces:
            yield kind, old.read(int(piece["offset"]), int(piece["length"]))


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


def _empty(value: object) -> object:
    """Nothing, of the type of a value."""
    if isinstance(value, (str, list)):
        return type(value)()
    return None


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=snapshot.ROWS_AT_A_TIME)
    return sink.getvalue().to_pybytes()


def as_json(options: PurgeOptions, found: Found, proof: Proof | None) -> str:
    """What was found and done, for machines."""
    there = dataclasses.asdict(found) | {"shards": {stem: sorted(clips) for stem, clips in found.shards.items()}}
    shown = None if proof is None else dataclasses.asdict(proof)
    return json.dumps({"done": options.delete, "found": there, "proof": shown, "warnings": _warnings(options, found)})


def as_text(options: PurgeOptions, found: Found, proof: Proof | None) -> str:
    """What was found and done, for people."""
    records = sum(len(clips) for clips in found.shards.values())
    lines = [
        f"{len(options.clip_ids)} clips named: {records} records in {len(found.shards)} shard files, "
        f"{len(found.media)} media files ({sum(found.media.values()) / 1e6:.1f} MB), {len(found.reports)} reports; "
        f"snapshots to amend: {', '.join(found.snapshots) or 'none'}"
    ]
    if found.unknown:
        lines.append(f"{len(found.unknown)} are not known here, and get a tombstone: {_some(found.unknown)}")
    lines += [f"warning: {warning}" for warning in _warnings(options, found)]
    if proof is None:
        return "\n".join([*lines, "nothing was changed: add --yes"])
    return "\n".join([*lines, *_proof_lines(proof)])


def _warnings(options: PurgeOptions, found: Found) -> list[str]:
    warnings = []
    if found.overlapping:
        warnings.append(
            f"{len(found.overlapping)} other clips show a part of the same time of the same source, and stay: "
            f"{_some(found.overlapping)}. Add them to --clips if they must go too"
        )
    if found.outside:
        warnings.append(f"sources on this machine stay where they are: {_some(found.outside)}")
    if storage.is_gcs(options.root):
        warnings.append(
            "a bucket may keep deleted objects: turn soft delete and object versioning off, or delete the kept "
            "objects too (gcloud storage ls --soft-deleted, and --all-versions, list them)"
        )
    elif not storage.is_local(options.root):
        warnings.append("a store may keep old versions of deleted files: see to it that it does not")
    return warnings


def _proof_lines(proof: Proof) -> Iterator[str]:
    what = ", ".join(f"{count} {name}" for name, count in proof.searched.items() if count) or "nothing"
    yield f"searched {proof.num_files} files, {proof.bytes / 1e6:.1f} MB, for {what}"
    if proof.plain:
        yield f"  not for {proof.plain} pieces that are as uniform as anybody's, such as silence"
    for owner, count in sorted(proof.shared.items()):
        yield f"  {count} of them are also the bytes of {owner}, which stays"
    for hit in proof.left:
        yield f"  left: {hit.length} bytes at {hit.offset} of {hit.path} ({needles.NAMES[hit.kind]})"
    yield "none is left" if not proof.left else "delete what is left, and run this again"


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

"""What there is of clips below ROOT: snapshots, shards, media, reports."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import ledger, media, needles, parquet, shard_file, snapshot, storage, tombstones
from mbt.pipeline.errors import IncompleteError, RefusedError
from mbt.pipeline.shard_file import ShardFile
from mbt.pipeline.sources import stays_in_place
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import CLIPS_FILE, MANIFEST_FILE, Manifest

_SPAN = ["source", "start_us", "end_us"]


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
      linked: files to delete that have names outside ROOT too, such as in an export; relative to ROOT.
    """

    snapshots: tuple[str, ...]
    shards: dict[str, frozenset[str]]
    media: dict[str, int]
    reports: tuple[str, ...]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]
    overlapping: tuple[str, ...]
    linked: tuple[str, ...]


class Finder:
    """Finds clips.

    Attributes:
      indices: of the shards that hold one of them, by stem; filled by `find`.
    """

    def __init__(self, root: str, clip_ids: frozenset[str], manifests: Sequence[Manifest]):
        self._root = root
        self._ids = clip_ids
        self._manifests = manifests
        self.indices: dict[str, shard_index.Index] = {}

    def find(self, named: frozenset[str]) -> Found:
        """All that there is.

        Args:
          named: ids that were named in this run, of which it is said whether they are known.

        Raises:
          RefusedError: a snapshot or one of its shards is damaged.
        """
        rows = {manifest.snapshot: self._rows(manifest) for manifest in self._manifests}
        held = tuple(one.snapshot for one in self._manifests if self._holds(one, rows[one.snapshot]))
        every = [row for there in rows.values() for row in there]
        attempts = self._attempts()
        known = {row["id"] for row in every} | {row["clip_id"] for row in attempts}
        spans = [row for row in [*every, *attempts] if row["source"]]
        neighbours = self._neighbours(spans)
        stored, shards = self._media(spans, attempts, neighbours), self._shards()
        return Found(
            snapshots=held,
            shards=shards,
            media=stored,
            reports=tuple(path for name in held for path in self._reports(name)),
            unknown=tuple(sorted(named - known)),
            outside=tuple(sorted({row["source"] for row in spans if stays_in_place(row["source"])})),
            overlapping=tuple(sorted(_overlapping(neighbours, spans))),
            linked=_linked(self._root, [*stored, *(f"{shard_file.FOLDER}/{stem}.tfrecord" for stem in shards)]),
        )

    def _holds(self, manifest: Manifest, rows: list[dict]) -> bool:
        """Whether a snapshot must be amended: it has one of the clips, or a purge stopped between its two files."""
        path = storage.join(self._root, snapshot.FOLDER, manifest.snapshot, CLIPS_FILE)
        is_as_published = hashlib.sha256(storage.read(path)).hexdigest() == manifest.clips_sha256
        if not is_as_published and not needles.exists(self._root):
            raise RefusedError(f"{path} is damaged: its digest is not the manifest's")
        return not is_as_published or any(row["reason"] != tombstones.PURGED for row in rows)

    def _rows(self, manifest: Manifest) -> list[dict]:
        """The rows of the clips in a snapshot."""
        rows = table(self._root, manifest, ["id", *_SPAN, "reason"])
        return rows.filter(pc.is_in(rows["id"], pa.array(sorted(self._ids), pa.string()))).to_pylist()

    def _attempts(self) -> list[dict]:
        attempts = ledger.read(self._root, ["clip_id", *_SPAN, "media"])
        return attempts.filter(pc.is_in(attempts["clip_id"], pa.array(sorted(self._ids), pa.string()))).to_pylist()

    def _shards(self) -> dict[str, frozenset[str]]:
        """All shards in the pool that hold a clip, of snapshots or not; an orphan that tells nothing counts as one."""
        used = {
            shard_file.stem_of(shard.path)
            for manifest in self._manifests
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
                self.indices[stem] = index
        return held

    def _media(self, spans: list[dict], attempts: list[dict], neighbours: list[dict]) -> dict[str, int]:
        """Files of the media store that were made for the clips, also those that the ledger does not know.

        What was fetched for another clip of the very same span too is that clip's, and stays as long as it does.
        """
        keys, shared = {_key(row) for row in spans}, {_key(row) for row in neighbours}
        named = {row["media"] for row in attempts}
        found = {}
        for file in storage.files(storage.join(self._root, media.FOLDER)):
            path, key = f"{media.FOLDER}/{file.path}", os.path.basename(file.path).partition("-")[0]
            if (path in named or key in keys) and key not in shared:
                found[path] = file.bytes
        return found

    def _reports(self, name: str) -> Iterator[str]:
        for file in storage.files(storage.join(self._root, snapshot.FOLDER, name)):
            if file.path not in (CLIPS_FILE, MANIFEST_FILE):
                yield f"{snapshot.FOLDER}/{name}/{file.path}"

    def _neighbours(self, spans: list[dict]) -> list[dict]:
        """Other clips of the same sources that are in a snapshot."""
        sources = pa.array(sorted({row["source"] for row in spans}), pa.string())
        found = []
        for manifest in self._manifests if spans else ():
            rows = table(self._root, manifest, ["id", *_SPAN, "outcome"])
            there = pc.and_(pc.is_in(rows["source"], sources), pc.equal(rows["outcome"], Outcome.OK.value))
            found += [row for row in rows.filter(there).to_pylist() if row["id"] not in self._ids]
        return found

    def pieces(self, found: Found) -> Iterator[tuple[int, bytes]]:
        """All that must not be found any more, each with its kind."""
        for stem, index in self.indices.items():
            with opened(self._root, stem, index) as old:
                for clip_id in sorted(found.shards[stem] & old.places.keys()):
                    yield from _pieces(old, old.places[clip_id])
        for path in found.media:
            with storage.open_file(storage.join(self._root, path)) as file:
                yield from needles.blocks(file)


def table(root: str, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """A snapshot's clip table.

    Raises:
      RefusedError: it cannot be read.
    """
    path = storage.join(root, snapshot.FOLDER, manifest.snapshot, CLIPS_FILE)
    try:
        return parquet.table(storage.read(path), columns)
    except (OSError, pa.ArrowException) as error:
        raise RefusedError(f"{path} cannot be read, so its clips are not known: {error}") from error


def opened(root: str, stem: str, index: shard_index.Index) -> ShardFile:
    """A shard of which the index is there.

    Raises:
      IncompleteError: the shard is not.
    """
    try:
        return ShardFile(root, stem, index)
    except FileNotFoundError as error:
        raise IncompleteError(f"shard {stem} is missing: run mbt-data verify --repair, then this again") from error


def _key(row: dict) -> str:
    return media.key(row["source"], row["start_us"], row["end_us"])


def _overlapping(rows: Iterable[dict], spans: Iterable[dict]) -> set[str]:
    """The ids of rows that show a part of the same time of the same source as one of the spans."""
    times = collections.defaultdict(set)
    for span in spans:
        times[span["source"]].add((span["start_us"], span["end_us"]))
    return {
        row["id"]
        for row in rows
        if any(row["start_us"] < end_us and start_us < row["end_us"] for start_us, end_us in times[row["source"]])
    }


def _pieces(old: ShardFile, place: int) -> Iterator[tuple[int, bytes]]:
    """Frames and spectrogram steps of a record; of one that is damaged, those that are whole or not."""
    for kind, pieces in ((needles.FRAME, old.index.frames(place)), (needles.STEP, old.index.steps(place))):
        for piece in pieces:
            yield kind, old.read(int(piece["offset"]), int(piece["length"]))


def _linked(root: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Which of these files have more names than those below ROOT."""
    if not storage.is_local(root):
        return ()
    names: collections.Counter = collections.Counter()
    links = {}
    for file in storage.files(root):
        status = os.stat(storage.join(root, file.path))
        names[status.st_dev, status.st_ino] += 1
        links[file.path] = status
    there = ((path, links[path]) for path in paths if path in links)
    return tuple(path for path, status in there if status.st_nlink > names[status.st_dev, status.st_ino])

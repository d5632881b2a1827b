"""What there is of clips below ROOT: snapshots, shards, media, reports."""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import ledger, needles, parquet, shard_file, snapshot, storage, tombstones
from mbt.pipeline.errors import IncompleteError, RefusedError
from mbt.pipeline.purge import holders
from mbt.pipeline.purge.holders import StoredFile
from mbt.pipeline.shard_file import ShardFile
from mbt.pipeline.sources import stays_in_place
from mbt.pipeline.tombstones import Span
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import CLIPS_FILE, MANIFEST_FILE, Manifest

_SPAN = ["source", "start_us", "end_us"]
_REPORT = b"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-"  # of our reports
_REPORT_HEAD = 4096
_ATTEMPTS = ["clip_id", *_SPAN, "outcome", "media", "media_start_us", "digest"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """What there is of the clips.

    Attributes:
      snapshots: names of those that must be amended.
      shards: stems of the shards that hold one of them, used or not, to the ids that they hold.
      media: files that were fetched for them, relative to ROOT, with their sizes.
      released: other clips' files that hold a part of them, likewise.
      reports: other files in those snapshots, which may show a clip, and reports elsewhere; relative to ROOT.
      unknown: ids that nothing here knows; they get tombstones too.
      outside: local sources of the clips; they are not in ROOT and stay.
      overlapping: other clips that show a part of the same time of the same source.
      dropped: such clips that go too.
      events: TensorBoard's files in the given folders that show pictures of batches.
      temporary: what killed processes left in this machine's folder for temporary files.
      in_use: what is there of processes that may still run.
      linked: files to delete that have names outside ROOT too, such as in an export; relative to ROOT.
      beside: clips that stay, and their media, that share the time only of such clips that nobody named.
    """

    snapshots: tuple[str, ...]
    shards: dict[str, frozenset[str]]
    media: dict[str, int]
    released: dict[str, int]
    reports: tuple[str, ...]
    unknown: tuple[str, ...]
    outside: tuple[str, ...]
    overlapping: tuple[str, ...]
    linked: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    temporary: tuple[str, ...] = ()
    in_use: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


class Finder:
    """Finds clips.

    Attributes:
      clip_ids: of those to find.
      program: the ffmpeg to run.
      dropped: of the clips, those that nobody named.
      indices: of the shards that hold one of them, by stem; filled by `find`.
      spans: of each clip; filled by `find`.
      purged: the times that no file may hold any more; filled by `find`.
      stored: the files of the media store that come from their sources, by path; filled by `find`.
    """

    def __init__(
        self,
        root: str,
        clip_ids: frozenset[str],
        manifests: Sequence[Manifest],
        program: str,
        dropped: frozenset[str] = frozenset(),
    ):
        """Prepares to.

        Args:
          root: of the dataset.
          clip_ids: to find.
          manifests: of all snapshots.
          program: the ffmpeg to run.
          dropped: of the clips, those that go only because they overlap a named one: no other clip's media go for them.
        """
        self._root = root
        self.clip_ids = clip_ids
        self._manifests = manifests
        self.program = program
        self.dropped = dropped
        self.indices: dict[str, shard_index.Index] = {}
        self.spans: dict[str, set[Span]] = {}
        self.purged = tombstones.Spans()
        self.stored: dict[str, StoredFile] = {}

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
        attempts = ledger.read(self._root, _ATTEMPTS).rename_columns(["id", *_ATTEMPTS[1:]])
        tried = self._of_clips(attempts).to_pylist()
        spans = [row for row in [*every, *tried] if row["source"]]
        self.spans = {clip_id: set() for clip_id in self.clip_ids}
        for row in spans:
            self.spans[row["id"]].add(tombstones.span_of(row))
        self.purged = self._spans_of(self.clip_ids - self.dropped, attempts)
        purged = self.purged
        neighbours = self._neighbours(purged, attempts)
        own = holders.of_sources(self._root, spans)
        released = self._holders(purged, neighbours, own)
        shards = self._shards()
        files = [*own, *released, *(f"{shard_file.FOLDER}/{stem}.tfrecord" for stem in shards)]
        return Found(
            snapshots=held,
            shards=shards,
            media={path: file.bytes for path, file in own.items()},
            released=released,
            reports=(*(path for name in held for path in self._reports(name)), *self._reports_elsewhere()),
            unknown=tuple(sorted(named - {row["id"] for row in [*every, *tried]})),
            outside=tuple(sorted({row["source"] for row in spans if stays_in_place(row["source"])})),
            overlapping=tuple(sorted(self._overlapping(neighbours, self._spans_of(named, attempts)))),
            linked=_linked(self._root, files),
            beside=_beside(neighbours, self._spans_of(self.dropped, attempts), purged),
        )

    def _of_clips(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.is_in(rows["id"], pa.array(sorted(self.clip_ids), pa.string())))

    def _spans_of(self, clip_ids: Iterable[str], attempts: pa.Table) -> tombstones.Spans:
        """The clips' times, also of other sources that gave the very same media."""
        spans = {span for clip_id in clip_ids for span in self.spans.get(clip_id, ())}
        digests = pa.array(sorted({span.digest for span in spans} - {""}), pa.string())
        same = attempts.filter(pc.is_in(attempts["digest"], digests)).to_pylist()
        known = tombstones.Spans(spans)
        for row in same:
            there = known.of_digest(row["digest"], row["media_start_us"])
            spans |= {dataclasses.replace(span, source=row["source"]) for span in there}
        return tombstones.Spans(spans)

    def _holds(self, manifest: Manifest, rows: list[dict]) -> bool:
        """Whether a snapshot must be amended: it has one of the clips, or a purge stopped between its two files."""
        path = storage.join(self._root, snapshot.FOLDER, manifest.snapshot, CLIPS_FILE)
        is_as_published = hashlib.sha256(storage.read(path)).hexdigest() == manifest.clips_sha256
        if not is_as_published and not needles.exists(self._root):
            raise RefusedError(f"{path} is damaged: its digest is not the manifest's")
        return not is_as_published or any(row["reason"] != tombstones.PURGED for row in rows)

    def _rows(self, manifest: Manifest) -> list[dict]:
        """The rows of the clips in a snapshot."""
        return self._of_clips(table(self._root, manifest, ["id", *_SPAN, "reason"])).to_pylist()

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
            if there := self.clip_ids & index.inputs().keys():
                held[stem] = frozenset(there)
                self.indices[stem] = index
        return held

    def _holders(self, purged: tombstones.Spans, neighbours: list[dict], own: dict[str, StoredFile]) -> dict[str, int]:
        """Files of other clips of the same sources that hold a part of what is purged, with their sizes."""
        self.stored = own | holders.of_sources(self._root, neighbours)
        spans = {file.source: purged.of(file.source) for file in self.stored.values()}
        others = [file for path, file in self.stored.items() if path not in own]
        return {file.path: file.bytes for file in holders.holding(self._root, others, spans, self.program)}

    def _reports(self, name: str) -> Iterator[str]:
        for file in storage.files(storage.join(self._root, snapshot.FOLDER, name)):
            if file.path not in (CLIPS_FILE, MANIFEST_FILE):
                yield f"{snapshot.FOLDER}/{name}/{file.path}"

    def _reports_elsewhere(self) -> Iterator[str]:
        """Reports that were written below ROOT, outside of the snapshots; of which of these nobody knows."""
        for file in storage.files(self._root):
            if file.path.endswith(".html") and not file.path.startswith(f"{snapshot.FOLDER}/"):
                with storage.open_file(storage.join(self._root, file.path)) as page:
                    if _REPORT in page.read(_REPORT_HEAD):
                        yield file.path

    def _neighbours(self, purged: tombstones.Spans, attempts: pa.Table) -> list[dict]:
        """Other clips of the same sources, in snapshots and in the ledger, whatever became of them."""
        found = []
        if purged:
            for rows in (attempts, *(table(self._root, one, ["id", *_SPAN, "outcome"]) for one in self._manifests)):
                sources = [source for source in pc.unique(rows["source"]).to_pylist() if source and purged.of(source)]
                there = rows.filter(pc.is_in(rows["source"], pa.array(sources, pa.string())))
                found += [row for row in there.to_pylist() if row["id"] not in self.clip_ids]
        return found

    def _overlapping(self, neighbours: Iterable[Mapping], named: tombstones.Spans) -> set[str]:
        """Clips that stay and show a part of the time of one that was named: they have a record, or may get one."""
        if not named:
            return set()
        state = ledger.state(self._root)
        fetched = state.filter(pc.not_equal(state["digest"], "")).select(["clip_id", *_SPAN]).to_pylist()
        there = [row | {"id": row["clip_id"]} for row in fetched if row["clip_id"] not in self.clip_ids]
        there += [row for row in neighbours if row["outcome"] == Outcome.OK and "media" not in row]
        return {
            row["id"]
            for row in there
            if any(span.shares(row["start_us"], row["end_us"]) for span in named.of(row["source"]))
        }

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


def _pieces(old: ShardFile, place: int) -> Iterator[tuple[int, bytes]]:
    """Frames and spectrogram steps of a record; of one that is damaged, those that are whole or not."""
    for kind, pieces in ((needles.FRAME, old.index.frames(place)), (needles.STEP, old.index.steps(place))):
        for piece in pieces:
            yield kind, old.read(int(piece["offset"]), int(piece["length"]))


def _beside(neighbours: Iterable[Mapping], dropped: tombstones.Spans, purged: tombstones.Spans) -> tuple[str, ...]:
    """Clips, as the proof calls them, and media of which the time is that of clips that nobody named."""

    def shares(row: Mapping, spans: tombstones.Spans) -> bool:
        return any(span.shares(row["start_us"], row["end_us"]) for span in spans.of(row["source"]))

    there = [row for row in neighbours if shares(row, dropped) and not shares(row, purged)]
    names = {f"clip {row['id']}" for row in there} | {row.get("media") or "" for row in there}
    return tuple(sorted(names - {""}))


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

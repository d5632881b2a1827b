"""One shard: the clips of a task to records, in order, several at a time; what the shard before has is taken over."""

import collections
import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from mbt.pipeline import attempts, media, memory, shard_file, storage
from mbt.pipeline.decode import Decoded, UnusableError, decode
from mbt.pipeline.ffmpeg import WorkerTroubleError
from mbt.pipeline.plan import Task
from mbt.pipeline.reasons import RULES
from mbt.pipeline.record import Context, Record, encode, relabelled
from mbt.pipeline.shard_file import Entry, ShardFile
from mbt.pipeline.sources import data_path, media_id
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import Shard
from mbt.schemas.tfrecord import CorruptRecordError

FOLDER = shard_file.FOLDER

# How a clip came into a shard.
DECODED = "decoded"
COPIED = "copied"
RELABELLED = "relabelled"

# A file that was whole when its digest was taken and is gone now: not a property of the clip.
_VANISHED = "missing"


class _MediaWantedError(Exception):
    """The media of a clip were deleted or damaged, and no record of it can be taken over either."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A clip that gives no record for now, and why."""

    id: str
    reason: str
    detail: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A clip whose media are to be fetched again."""

    id: str


_Came = Entry | LeftOut | _Wanted


class LackingError(WorkerTroubleError):
    """Clips of which a shard lacks the records.

    Attributes:
      wanted: ids of those whose media were deleted or damaged: with media there is a record.
      left_out: those that give none for now: without them, the shard is another one.
    """

    def __init__(self, wanted: Sequence[str], left_out: Sequence[LeftOut]):
        said = []
        if wanted:
            said.append(f"the media of {len(wanted)} clips are gone or damaged, such as those of {wanted[0]!r}")
        if left_out:
            first = left_out[0]
            words = f"{len(left_out)} clips are left out, such as {first.id!r} ({first.reason}: {first.detail})"
            said.append(words)
        super().__init__("; ".join(said))
        self.wanted = wanted
        self.left_out = left_out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """A shard that is there.

    Attributes:
      index: of the shard.
      counts: clips by how they came into it; empty where the shard was there before.
    """

    index: shard_index.Index
    counts: collections.Counter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
    """What all shards of a run have in common.

    Attributes:
      root: of the dataset.
      work: folder of the run's temporary files, where media lie that this run alone may have; or None.
      dataset_name: as it stands in the records.
      media_root: what paths in the records are relative to.
      program: the ffmpeg to run.
      threads: clips decoded at a time.
      time_limit_s: of one clip's decoding.
      rules: what older ones than these refused is tried once more.
      index_version: of the shards' indices.
      on_clip: called with the outcome of each clip as soon as it is known.
    """

    root: str
    dataset_name: str
    media_root: str
    program: str
    threads: int
    time_limit_s: float
    rules: int = RULES
    index_version: int = shard_index.VERSION
    on_clip: Callable[[str], None] = lambda outcome: None
    work: str | None = None

    def build(self, task: Task, rows: list[dict]) -> Built:
        """Makes the shard and its index, complete and under their final names, unless they are there.

        Args:
          task: says which shard.
          rows: its clips, each as `plan.with_digests` gives it.

        Raises:
          LackingError: clips lack media, or give no records for now; nothing was published.
          WorkerTroubleError: this machine failed on a clip; likewise.
          OSError: likewise, on a file.
        """
        if (found := shard_file.existing(self.root, task.stem)) is not None:
            for _ in found.ids:
                self.on_clip(Outcome.OK)
            for clip in found.absent:
                self.on_clip(clip["outcome"])
            return Built(index=found, counts=collections.Counter())
        old = shard_file.open_shard(self.root, task.predecessor) if task.predecessor else None
        present = [row for row in rows if row["outcome"] == Outcome.OK]
        with old or contextlib.nullcontext():
            if wanted := [row["id"] for row in present if not self._is_held(row, old) and not self._has_media(row)]:
                raise LackingError(wanted, ())
            return self.rebuild(task.stem, present, old)

    def rebuild(self, stem: str, rows: list[dict], old: ShardFile | None, expected: Shard | None = None) -> Built:
        """Makes a shard, whether or not it is there, of rows that have media.

        Raises:
          OtherBytesError: something else than `expected` came out; nothing was published.
          WorkerTroubleError: as in `build`.
        """
        counts: collections.Counter = collections.Counter()
        entries = self._entries(rows, old, counts)
        index = shard_file.write(self.root, stem, entries, expected, self.index_version)
        return Built(index=index, counts=counts)

    def _entries(self, rows: list[dict], old: ShardFile | None, counts: collections.Counter) -> Iterator[Entry]:
        wanted: list[str] = []
        left_out: list[LeftOut] = []
        for how, entry in self._in_order(rows, old):
            if isinstance(entry, _Wanted):
                wanted.append(entry.id)
                continue
            if isinstance(entry, LeftOut):
                left_out.append(entry)
                self.on_clip(Outcome.TRANSIENT)
                continue
            counts[how] += 1
            self.on_clip(Outcome.UNUSABLE if isinstance(entry.made, UnusableError) else Outcome.OK)
            if not (wanted or left_out):  # the shard is in vain, but tells of all such clips at once
                yield entry
            del entry  # a record may be large
        if wanted or left_out:
            raise LackingError(wanted, left_out)

    def _in_order(self, rows: list[dict], old: ShardFile | None) -> Iterator[tuple[str, _Came]]:
        """The rows' entries in order, `threads` in the making, in the memory that a process has for them."""
        room = memory.room(self.threads)
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            pending: collections.deque[tuple[memory.Place, concurrent.futures.Future]] = collections.deque()
            try:
                for row in rows:
                    place = memory.Place(room)
                    pending.append((place, pool.submit(self._entry, row, old, place)))
                    if len(pending) > self.threads:
                        yield _next(pending)
                while pending:
                    yield _next(pending)
            finally:
                for place, future in pending:
                    place.abandon()
                    future.cancel()

    def _entry(self, row: dict, old: ShardFile | None, place: memory.Place) -> tuple[str, _Came]:
        """How a clip came into the shard, and what stands there; or why it did not."""
        try:
            with place.use():
                how, made = self._taken_over(row, old) or (DECODED, self._decoded(row))
        except attempts.PassingError as error:
            return "", LeftOut(id=row["id"], reason=error.reason, detail=str(error))
        except _MediaWantedError:
            return "", _Wanted(id=row["id"])
        return how, Entry(
            id=row["id"], labels=row["label_indices"], inputs=row["inputs"], content=row["content"], made=made
        )

    def _taken_over(self, row: dict, old: ShardFile | None) -> tuple[str, Record | UnusableError] | None:
        """What the old shard has of a clip, if that is still true and its bytes are whole."""
        if old is None or not self._is_held(row, old):
            return None
        if (clip := old.absent.get(row["id"])) is not None:
            return COPIED, UnusableError(clip["reason"], clip["detail"], clip["rule"])
        return self._taken_record(row, old, old.places[row["id"]])

    def _taken_record(self, row: dict, old: ShardFile, place: int) -> tuple[str, Record] | None:
        memory.place().take(int(old.index.records[place]["length"]))
        try:
            record = old.record(place)
        except (CorruptRecordError, OSError):
            return None  # decoded anew: damage does not spread
        if old.index.records[place]["inputs"].tobytes() == row["inputs"]:
            return COPIED, record
        return RELABELLED, relabelled(self._context(row), record)

    def _is_held(self, row: dict, old: ShardFile | None) -> bool:
        """Whether the old shard has a clip, made of the same media, and not refused by older rules, which may err."""
        if old is None:
            return False
        if (clip := old.absent.get(row["id"])) is not None:
            return clip["content"] == row["content"].hex() and clip["rule"] >= self.rules
        place = old.places.get(row["id"])
        return place is not None and old.index.records[place]["content"].tobytes() == row["content"]

    def _decoded(self, row: dict) -> Record | UnusableError:
        if not self._has_media(row):
            raise _MediaWantedError
        path = self._path(row)
        try:
            with storage.local_copy(path) as copy:
                if row["media"] and not media.digest_of(copy)[0].startswith(row["digest"]):
                    raise _MediaWantedError  # damaged since it was stored: fetched again
                return self._encoded(row, copy)
        except FileNotFoundError as error:
            if row["media"]:
                raise _MediaWantedError from error
            raise WorkerTroubleError(f"{path} was there when the build began, and is not any more") from error

    def _encoded(self, row: dict, path: str) -> Record | UnusableError:
        # Of a cut, which begins a little before the clip.
        start_us, end_us = (max(0, row[name] - row["media_start_us"]) for name in ("start_us", "end_us"))

        def decoded() -> Decoded:
            return decode(path, start_us, end_us, program=self.program, time_limit_s=self.time_limit_s)

        try:
            return encode(self._context(row), attempts.tried(decoded))
        except UnusableError as error:
            if error.reason == _VANISHED:
                raise WorkerTroubleError(f"{path} was there when the build began, and is not any more") from error
            return error
        except WorkerTroubleError as error:
            raise WorkerTroubleError(f"clip {row['id']!r} ({path}): {error}") from error

    def _has_media(self, row: dict) -> bool:
        """Whether there is a file to decode: in the store, in place on this machine, or for this run alone."""
        return not row.get("released", False) or (self.work is not None and storage.exists(self._path(row)))

    def _path(self, row: dict) -> str:
        if not row["media"]:
            return row["source"]
        place = self.work if row.get("released", False) and self.work else self.root
        return storage.join(place, row["media"])

    def _context(self, row: dict) -> Context:
        return Context(
            id=row["id"],
            dataset_name=self.dataset_name,
            media_id=media_id(row["source"]),
            data_path=data_path(row["source"], self.media_root),
            start_us=row["start_us"],
            label_indices=row["label_indices"],
            label_strings=row["labels"],
        )


def _next(pending: collections.deque[tuple[memory.Place, concurrent.futures.Future]]) -> tuple[str, _Came]:
    """What came of the clip whose turn it is."""
    place, future = pending.popleft()
    place.call()
    return future.result()

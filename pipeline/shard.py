"""One shard: the clips of a task to a TFRecord file and its index, in order, decoding several at a time."""

import collections
import concurrent.futures
import dataclasses
import os
import uuid
from collections.abc import Callable, Iterable, Iterator

import google_crc32c
import numpy as np

from mbt.pipeline import storage
from mbt.pipeline.decode import UnusableError, decode
from mbt.pipeline.ffmpeg import DecoderCrashError, WorkerTroubleError
from mbt.pipeline.plan import Task
from mbt.pipeline.record import Context, Record, encode
from mbt.pipeline.sources import data_path, media_id
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame

FOLDER = "shards"
TRIES = 3  # of a clip on which this machine fails

# A file that was whole when its digest was taken and is gone now: not a property of the clip.
_VANISHED = "missing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
    """What all shards of a run have in common.

    Attributes:
      root: of the dataset.
      dataset_name: as it stands in the records.
      media_root: what paths in the records are relative to.
      program: the ffmpeg to run.
      threads: clips decoded at a time.
      time_limit_s: of one clip's decoding.
      on_clip: called with the outcome of each clip as soon as it is known.
    """

    root: str
    dataset_name: str
    media_root: str
    program: str
    threads: int
    time_limit_s: float
    on_clip: Callable[[str], None] = lambda outcome: None

    def build(self, task: Task, rows: list[dict]) -> shard_index.Index:
        """Makes the shard and its index, complete and under their final names, unless they are there.

        Raises:
          WorkerTroubleError: this machine failed on a clip; nothing was published.
          OSError: likewise, on a file.
        """
        if (found := self.existing(task)) is not None:
            for _ in found.ids:
                self.on_clip(Outcome.OK)
            for clip in found.absent:
                self.on_clip(clip["outcome"])
            return found
        present = [row for row in rows if row["outcome"] == Outcome.OK]
        attempt = storage.join(self.root, "tmp", FOLDER, f"{task.stem}-{uuid.uuid4().hex}")
        try:
            index = self._write(attempt + ".tfrecord", present)
            _verify(attempt + ".tfrecord", index)
            with storage.create(attempt + ".index") as file:
                file.write(shard_index.dump(index))
            # The index comes last: a shard is there when its index is.
            for extension in (".tfrecord", ".index"):
                storage.publish(attempt + extension, self.path(task) + extension)
        except BaseException:
            storage.delete(attempt + ".tfrecord", attempt + ".index")
            raise
        return index

    def path(self, task: Task) -> str:
        """The shard's final path, without extension."""
        return storage.join(self.root, FOLDER, task.stem)

    def existing(self, task: Task) -> shard_index.Index | None:
        """The index of a shard that is already there and whole, by its size; else None."""
        try:
            index = shard_index.load(storage.read(self.path(task) + ".index"))
        except (FileNotFoundError, shard_index.CorruptIndexError):
            return None
        folder, name = os.path.split(self.path(task) + ".tfrecord")
        return index if storage.sizes(folder).get(name) == index.shard_bytes else None

    def _write(self, path: str, rows: list[dict]) -> shard_index.Index:
        checksum = google_crc32c.Checksum()
        absent: list[dict[str, str]] = []
        ids: list[str] = []
        parts = _IndexParts()
        offset = 0
        with storage.create(path) as file:
            for row, result in zip(rows, self._encoded(rows), strict=True):
                if isinstance(result, UnusableError):
                    absent.append(_absent(row["id"], result))
                    self.on_clip(Outcome.UNUSABLE)
                    continue
                for piece in (*(around := frame(result.payload))[:1], result.payload, around[1]):
                    file.write(piece)
                    checksum.update(piece)
                parts.add(offset + HEADER_BYTES, result, row["label_indices"])
                ids.append(row["id"])
                offset += HEADER_BYTES + len(result.payload) + FOOTER_BYTES
                self.on_clip(Outcome.OK)
        return shard_index.Index(
            **parts.arrays(),
            ids=tuple(ids),
            absent=tuple(absent),
            shard_bytes=offset,
            shard_crc32c=int.from_bytes(checksum.digest(), "big"),
        )

    def _encoded(self, rows: Iterable[dict]) -> Iterator[Record | UnusableError]:
        """The rows' records in order, `threads` in the making: memory is theirs, however many rows there are."""
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            pending: collections.deque[concurrent.futures.Future] = collections.deque()
            try:
                for row in rows:
                    pending.append(pool.submit(self._record, row))
                    if len(pending) > self.threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _record(self, row: dict) -> Record | UnusableError:
        path = storage.join(self.root, row["media"]) if row["media"] else row["source"]
        try:
            with storage.local_copy(path) as copy:
                return self._decoded(row, copy)
        except FileNotFoundError as error:
            raise WorkerTroubleError(f"{path} was there when the build began, and is not any more") from error

    def _decoded(self, row: dict, path: str) -> Record | UnusableError:
        # Of a cut, which begins a little before the clip.
        start_us, end_us = (max(0, row[name] - row["media_start_us"]) for name in ("start_us", "end_us"))
        for remaining in reversed(range(TRIES)):
            try:
                decoded = decode(path, start_us, end_us, program=self.program, time_limit_s=self.time_limit_s)
                return encode(self._context(row), decoded)
            except UnusableError as error:
                if error.reason == _VANISHED:
                    raise WorkerTroubleError(f"{path} was there when the build began, and is not any more") from error
                return error
            except WorkerTroubleError as error:
                if not remaining and isinstance(error, DecoderCrashError):
                    return UnusableError("decoder_crashed", f"{error}, {TRIES} times")
                if not remaining:
                    raise WorkerTroubleError(f"clip {row['id']!r} ({path}): {error}, {TRIES} times") from error
        raise AssertionError("unreachable")

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


class _IndexParts:
    """Gathers an index, record by record."""

    def __init__(self) -> None:
        self._records: list[tuple] = []
        self._pieces: list[np.ndarray] = []
        self._labels: list[int] = []
        self._num_pieces = 0
        self._sums = [0.0, 0.0]

    def add(self, offset: int, record: Record, labels: list[int]) -> None:
        """Adds the record whose payload begins at `offset` of the shard."""
        pieces = record.pieces.copy()
        pieces["offset"] += np.uint64(offset)
        self._records.append(
            (
                offset,
                len(record.payload),
                self._num_pieces,
                len(self._labels),
                len(labels),
                record.num_frames,
                len(pieces) - record.num_frames,
                record.num_mel_rows,
                record.height,
                record.width,
            )
        )
        self._pieces.append(pieces)
        self._labels += labels
        self._num_pieces += len(pieces)
        self._sums[0] += record.mel_sum
        self._sums[1] += record.mel_sum_of_squares

    def arrays(self) -> dict:
        """The fields of `Index` that come from the records."""
        return {
            "records": np.array(self._records, shard_index.RECORD),
            "pieces": np.concatenate([np.empty(0, shard_index.PIECE), *self._pieces]),
            "labels": np.array(self._labels, np.int32),
            "mel_sum": self._sums[0],
            "mel_sum_of_squares": self._sums[1],
        }


def _absent(clip_id: str, error: UnusableError) -> dict[str, str]:
    return {"id": clip_id, "outcome": Outcome.UNUSABLE.value, "reason": error.reason, "detail": error.detail}


def _verify(path: str, index: shard_index.Index) -> None:
    """Reads a file back: what is published is what was meant, whatever disk or network did."""
    checksum, size = google_crc32c.Checksum(), 0
    with storage.open_file(path) as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
            size += len(chunk)
    if size != index.shard_bytes or int.from_bytes(checksum.digest(), "big") != index.shard_crc32c:
        raise OSError(f"{path} does not read back as it was written")

"""A shard's two files: written whole or not at all, and read record by record, each checked."""

import dataclasses
import os
import struct
import threading
import uuid
from collections.abc import Iterable
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from mbt.pipeline import storage
from mbt.pipeline.decode import UnusableError
from mbt.pipeline.record import Record
from mbt.schemas import index as shard_index
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import Shard
from mbt.schemas.tfrecord import FOOTER_BYTES, HEADER_BYTES, CorruptRecordError, frame

FOLDER = "shards"


class OtherBytesError(ValueError):
    """A shard came out otherwise than it once was; it was not published."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A clip of a shard.

    Attributes:
      id: of the clip.
      labels: label indices.
      inputs: digest, see `mbt.schemas.index`.
      content: likewise.
      made: the record, or why there is none.
    """

    id: str
    labels: list[int]
    inputs: bytes
    content: bytes
    made: Record | UnusableError


def write(
    root: str,
    stem: str,
    entries: Iterable[Entry],
    expected: Shard | None = None,
    index_version: int = shard_index.VERSION,
) -> shard_index.Index:
    """Writes a shard and its index, complete and under their final names.

    Args:
      root: of the dataset.
      stem: file name without extension.
      entries: in the order of the shard.
      expected: what must come out, where that is known.
      index_version: of the index; an older one where an older snapshot's shard is made again.

    Raises:
      OtherBytesError: something else than `expected` came out.
      OSError: a file could not be written, or does not read back.
    """
    attempt = storage.join(root, "tmp", FOLDER, f"{stem}-{uuid.uuid4().hex}")
    try:
        index = dataclasses.replace(_write_records(attempt + ".tfrecord", entries), version=index_version)
        _read_back(attempt + ".tfrecord", index)
        data = shard_index.dump(index)
        _check(stem, index, data, expected)
        with storage.create(attempt + ".index") as file:
            file.write(data)
        # The index comes last: a shard is there when its index is.
        for extension in (".tfrecord", ".index"):
            storage.publish(attempt + extension, storage.join(root, FOLDER, stem + extension))
    except BaseException:
        storage.delete(attempt + ".tfrecord", attempt + ".index")
        raise
    return index


def _check(stem: str, index: shard_index.Index, data: bytes, expected: Shard | None) -> None:
    checksums = f"{index.shard_crc32c:08x}", f"{shard_index.file_crc32c(data):08x}"
    if expected is not None and checksums != (expected.crc32c, expected.index_crc32c):
        raise OtherBytesError(f"{stem}: what was built now differs from what the manifest says")


def existing(root: str, stem: str) -> shard_index.Index | None:
    """The index of a shard that is there and whole, by its size; else None."""
    try:
        index = shard_index.load(storage.read(storage.join(root, FOLDER, stem + ".index")))
    except (FileNotFoundError, shard_index.CorruptIndexError):
        return None
    # Not by a listing: of 65,536 shards, each asked for so, that would take days.
    return index if storage.size(storage.join(root, FOLDER, stem + ".tfrecord")) == index.shard_bytes else None


def _write_records(path: str, entries: Iterable[Entry]) -> shard_index.Index:
    checksum = google_crc32c.Checksum()
    absent: list[dict[str, Any]] = []
    ids: list[str] = []
    parts = IndexParts()
    offset = 0
    with storage.create(path) as file:
        for entry in entries:
            if isinstance(entry.made, UnusableError):
                absent.append(_absent(entry, entry.made))
                continue
            header, footer = frame(entry.made.payload)
            for piece in (header, entry.made.payload, footer):
                file.write(piece)
                checksum.update(piece)
            parts.add(offset + HEADER_BYTES, entry, entry.made)
            ids.append(entry.id)
            offset += HEADER_BYTES + len(entry.made.payload) + FOOTER_BYTES
            del entry  # a record may be large, and the next one is made now
    return shard_index.Index(
        **parts.arrays(),
        ids=tuple(ids),
        absent=tuple(absent),
        shard_bytes=offset,
        shard_crc32c=int.from_bytes(checksum.digest(), "big"),
    )


def _absent(entry: Entry, error: UnusableError) -> dict[str, Any]:
    return {
        "id": entry.id,
        "outcome": Outcome.UNUSABLE.value,
        "reason": error.reason,
        "detail": error.detail,
        "rule": error.rule,
        "inputs": entry.inputs.hex(),
        "content": entry.content.hex(),
    }


class IndexParts:
    """Gathers an index, record by record."""

    def __init__(self) -> None:
        self._records: list[tuple] = []
        self._pieces: list[np.ndarray] = []
        self._labels: list[int] = []
        self._treatments: dict[str, tuple[str, ...]] = {}
        self._num_pieces = 0

    def add(self, offset: int, entry: Entry, record: Record) -> None:
        """Adds the record whose payload begins at `offset` of the shard."""
        pieces = record.pieces.copy()
        pieces["offset"] += np.uint64(offset)
        self._records.append(
            (
                offset,
                len(record.payload),
                self._num_pieces,
                len(self._labels),
                len(entry.labels),
                record.num_frames,
                len(pieces) - record.num_frames,
                record.num_mel_rows,
                record.height,
                record.width,
                record.mel_sum,
                record.mel_sum_of_squares,
                entry.inputs,
                entry.content,
            )
        )
        self._pieces.append(pieces)
        self._labels += entry.labels
        if record.treatments:
            self._treatments[entry.id] = record.treatments
        self._num_pieces += len(pieces)

    def arrays(self) -> dict:
        """The fields of `Index` that come from the records."""
        return {
            "records": np.array(self._records, shard_index.RECORD),
            "pieces": np.concatenate([np.empty(0, shard_index.PIECE), *self._pieces]),
            "labels": np.array(self._labels, np.int32),
            "treatments": self._treatments,
        }


def _read_back(path: str, index: shard_index.Index) -> None:
    """Reads a file back: what is published is what was meant, whatever disk or network did."""
    checksum, size = google_crc32c.Checksum(), 0
    with storage.open_file(path) as file:
        while chunk := file.read(1 << 20):
            checksum.update(chunk)
            size += len(chunk)
    if size != index.shard_bytes or int.from_bytes(checksum.digest(), "big") != index.shard_crc32c:
        raise OSError(f"{path} does not read back as it was written")


class ShardFile:
    """A shard that is there, to take records from; safe to use from several threads.

    Attributes:
      index: of the shard.
      places: clip id to the position of its record.
      absent: clip id to what the index says of a clip without a record.
    """

    def __init__(self, root: str, stem: str, index: shard_index.Index):
        """Opens a shard.

        Args:
          root: of the dataset.
          stem: file name without extension.
          index: its own, or one that says as much of it.

        Raises:
          OSError: the file is not there.
        """
        self.index = index
        self.places = {clip_id: place for place, clip_id in enumerate(index.ids)}
        self.absent = {clip["id"]: clip for clip in index.absent}
        self._file = storage.open_file(storage.join(root, FOLDER, stem + ".tfrecord"))
        self._lock = threading.Lock()

    def __enter__(self) -> "ShardFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends reading."""
        self._file.close()

    def entry(self, place: int) -> Entry:
        """A record with what the index says of it.

        Raises:
          CorruptRecordError: its bytes are not those that were written.
          OSError: they cannot be read.
        """
        row = self.index.records[place]
        return Entry(
            id=self.index.ids[place],
            labels=self.index.record_labels(place).tolist(),
            inputs=row["inputs"].tobytes(),
            content=row["content"].tobytes(),
            made=self.record(place),
        )

    def absent_entry(self, clip_id: str) -> Entry:
        """A clip that has no record, with the reason."""
        clip = self.absent[clip_id]
        inputs, content = (bytes.fromhex(clip[name]) for name in ("inputs", "content"))
        made = UnusableError(clip["reason"], clip["detail"], clip["rule"])
        return Entry(id=clip_id, labels=[], inputs=inputs, content=content, made=made)

    def record(self, place: int) -> Record:
        """A record; raises as `entry`."""
        row = self.index.records[place]
        payload = self._payload(int(row["offset"]), int(row["length"]))
        pieces = np.concatenate([self.index.frames(place), self.index.steps(place)])
        pieces["offset"] -= row["offset"]
        return Record(
            payload=payload,
            pieces=pieces,
            num_frames=int(row["num_frames"]),
            num_mel_rows=int(row["num_mel_rows"]),
            height=int(row["height"]),
            width=int(row["width"]),
            mel_sum=float(row["mel_sum"]),
            mel_sum_of_squares=float(row["mel_sum_of_squares"]),
            treatments=self.index.treatments.get(self.index.ids[place], ()),
        )

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, unchecked."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)

    def _payload(self, offset: int, length: int) -> bytes:
        with self._lock:
            framed = read_framed(self._file, offset, length)
        return unframed(framed, length)


def read_framed(file: BinaryIO, offset: int, length: int) -> bytes:
    """The bytes of a record whose payload lies there, with those around it; fewer where the file ends."""
    file.seek(offset - HEADER_BYTES)
    return file.read(HEADER_BYTES + length + FOOTER_BYTES)


def unframed(framed: bytes, length: int) -> bytes:
    """The payload of a framed record of known length.

    Raises:
      CorruptRecordError: a byte of it is not as it was written.
    """
    if len(framed) != HEADER_BYTES + length + FOOTER_BYTES:
        raise CorruptRecordError("the file ends inside the record")
    if struct.unpack_from("<Q", framed)[0] != length:
        raise CorruptRecordError("the record's length is not that of the index")
    payload = framed[HEADER_BYTES:-FOOTER_BYTES]
    header, footer = frame(payload)
    if framed[:HEADER_BYTES] != header:
        raise CorruptRecordError("the record's length does not match its checksum")
    if framed[-FOOTER_BYTES:] != footer:
        raise CorruptRecordError("the record does not match its checksum")
    return payload


def open_shard(root: str, stem: str) -> ShardFile | None:
    """The shard of that name; None where there is none, or none that can be read."""
    try:
        return ShardFile(root, stem, shard_index.load(storage.read(storage.join(root, FOLDER, stem + ".index"))))
    except (OSError, shard_index.CorruptIndexError):
        return None


def stem_of(path: str) -> str:
    """A shard's file name without folder and extension."""
    return os.path.splitext(os.path.basename(path))[0]

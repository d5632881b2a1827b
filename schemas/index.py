"""The index beside each shard: where every frame and spectrogram step lies, and what became of every clip.

Layout, little-endian: a header; `RECORD` rows; `PIECE` rows (per record its frames, then its spectrogram
steps); int32 labels; a JSON object with the records' ids, how some of them were treated, and the clips that are
absent, with reasons; CRC-32C of all before. A reader can memory-map it and fetch any frame by (offset, length) and
check it by its CRC. Version 2 has no treatments, nor the rules by which a clip is absent; it is read, and written
where a shard of that version is made again.

Each clip, present or absent, carries two digests, by which a later build knows what it can take over: of all
that its record is made from, and of the part of that which is decoded (media, span, encoder).
"""

import dataclasses
import json
import math
import struct
from typing import Any

import google_crc32c
import numpy as np

from mbt.schemas import own_json

MAGIC = b"MBTINDEX"
VERSION = 3
FIRST_VERSION = 2  # that is still read
DIGEST_BYTES = 16
MAX_FRAME_PIXELS = 4096 * 4096  # no source may have more; a reader refuses larger frames before it decodes them
FIRST_RULES = 1  # by which a clip is absent where that is not said
_HEADER = struct.Struct("<8sIIQQQQI")

RECORD = np.dtype(
    [
        ("offset", "<u8"),  # of the payload in the shard, bytes
        ("length", "<u8"),  # of the payload, bytes
        ("first_piece", "<u8"),  # row in `pieces` of the first frame
        ("first_label", "<u8"),  # position in `labels`
        ("num_labels", "<u4"),
        ("num_frames", "<u4"),
        ("num_steps", "<u4"),  # spectrogram steps, a second each
        ("num_mel_rows", "<u4"),  # valid rows, before padding
        ("height", "<u4"),  # pixels
        ("width", "<u4"),  # pixels
        ("mel_sum", "<f8"),  # of all valid spectrogram values
        ("mel_sum_of_squares", "<f8"),
        ("inputs", f"V{DIGEST_BYTES}"),  # digest of all that the record is made from
        ("content", f"V{DIGEST_BYTES}"),  # digest of what its frames and spectrogram are made from
    ]
)
PIECE = np.dtype([("offset", "<u8"), ("length", "<u4"), ("crc32c", "<u4")])  # offset in the shard


class CorruptIndexError(ValueError):
    """The bytes are not a whole index of this version."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """A shard's index.

    Attributes:
      records: (records,) of dtype `RECORD`, in file order.
      pieces: (frames and steps of all records,) of dtype `PIECE`.
      labels: (labels of all records,) int32.
      ids: the records' clip ids, in file order.
      absent: clips that belong to this shard but have no record: dicts with `id`, `outcome`, `reason`, `detail`, `rule`
        (the version of the rules that say so, an int), and `inputs` and `content` in hexadecimal.
      treatments: clip id to how its media were treated beyond the usual, as sorted words such as "tone_mapped"; only of
        records of which there is something to say.
      shard_bytes: size of the shard file.
      shard_crc32c: of the whole shard file.
      version: of the file's layout.
    """

    records: np.ndarray
    pieces: np.ndarray
    labels: np.ndarray
    ids: tuple[str, ...]
    absent: tuple[dict[str, Any], ...]
    treatments: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    shard_bytes: int = 0
    shard_crc32c: int = 0
    version: int = VERSION

    def mel_sums(self) -> tuple[float, float]:
        """Sum over all valid spectrogram values of the shard, and sum of their squares."""
        # fsum rounds once: Python's own sum rounds otherwise since 3.12.
        return math.fsum(self.records["mel_sum"]), math.fsum(self.records["mel_sum_of_squares"])

    def inputs(self) -> dict[str, bytes]:
        """The digest of each clip's inputs by id, records first."""
        there = dict(zip(self.ids, self.records["inputs"].tolist(), strict=True))
        return there | {clip["id"]: bytes.fromhex(clip["inputs"]) for clip in self.absent}

    def frames(self, record: int) -> np.ndarray:
        """(frames,) of dtype `PIECE`: the JPEGs of a record; a piece is the bare JPEG."""
        row = self.records[record]
        return self.pieces[int(row["first_piece"]) :][: int(row["num_frames"])]

    def steps(self, record: int) -> np.ndarray:
        """(seconds,) of dtype `PIECE`: the spectrogram steps of a record; a piece is 100 x 128 float32."""
        row = self.records[record]
        return self.pieces[int(row["first_piece"]) + int(row["num_frames"]) :][: int(row["num_steps"])]

    def record_labels(self, record: int) -> np.ndarray:
        """(labels,) int32 of a record."""
        row = self.records[record]
        return self.labels[int(row["first_label"]) :][: int(row["num_labels"])]


def dump(index: Index) -> bytes:
    """The index as the bytes of its file."""
    strings = json.dumps(_strings(index), sort_keys=True).encode()
    body = b"".join(
        [
            _HEADER.pack(
                MAGIC,
                index.version,
                len(index.records),
                len(index.pieces),
                len(index.labels),
                len(strings),
                index.shard_bytes,
                index.shard_crc32c,
            ),
            index.records.astype(RECORD).tobytes(),
            index.pieces.astype(PIECE).tobytes(),
            index.labels.astype("<i4").tobytes(),
            strings,
        ]
    )
    return body + struct.pack("<I", google_crc32c.value(body))


def _strings(index: Index) -> dict[str, Any]:
    """The JSON part."""
    if index.version > FIRST_VERSION:
        return {"ids": index.ids, "absent": index.absent, "treatments": index.treatments}
    absent = [{name: value for name, value in clip.items() if name != "rule"} for clip in index.absent]
    return {"ids": index.ids, "absent": absent}


def load(data: Any) -> Index:
    """Reads an index, without copying.

    Args:
      data: bytes, a memory map, or anything else with the buffer protocol.

    Raises:
      CorruptIndexError: the bytes are not whole, or of another version.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size + 4 or bytes(view[:8]) != MAGIC:
        raise CorruptIndexError("not a shard index")
    if google_crc32c.value(bytes(view[:-4])) != struct.unpack("<I", view[-4:])[0]:
        raise CorruptIndexError("the index does not match its checksum")
    _, version, records, pieces, labels, strings, *summary = _HEADER.unpack(view[: _HEADER.size])
    if not FIRST_VERSION <= version <= VERSION:
        raise CorruptIndexError(f"index version {version}, expected {FIRST_VERSION} to {VERSION}")
    offset = _HEADER.size
    sizes = (RECORD.itemsize * records, PIECE.itemsize * pieces, 4 * labels, strings)
    if offset + sum(sizes) + 4 != len(view):
        raise CorruptIndexError("its parts are not as long as its header says")
    parts: list[np.ndarray] = []
    for dtype, count in ((RECORD, records), (PIECE, pieces), (np.dtype("<i4"), labels)):
        parts.append(np.frombuffer(view, dtype, count, offset))
        offset += dtype.itemsize * count
    if records and int((parts[0]["height"].astype(np.int64) * parts[0]["width"]).max()) > MAX_FRAME_PIXELS:
        raise CorruptIndexError(f"it names frames of over {MAX_FRAME_PIXELS >> 20} megapixels")
    try:
        texts = _texts(bytes(view[offset : offset + strings]), version)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptIndexError(f"its JSON is not as it was written: {error}") from error
    return Index(
        records=parts[0],
        pieces=parts[1],
        labels=parts[2],
        shard_bytes=summary[0],
        shard_crc32c=summary[1],
        version=version,
        **texts,
    )


def _texts(strings: bytes, version: int) -> dict[str, Any]:
    """What `_strings` wrote, as fields of an index."""
    read = own_json.parse(strings)
    rule = {"rule": FIRST_RULES}
    return {
        "ids": tuple(read["ids"]),
        "absent": tuple(read["absent"] if version > FIRST_VERSION else (clip | rule for clip in read["absent"])),
        "treatments": {clip: tuple(words) for clip, words in read.get("treatments", {}).items()},
    }


def file_crc32c(data: bytes) -> int:
    """CRC-32C of an index file without its own at the end: with that, every whole file would have the same sum."""
    return google_crc32c.value(data[:-4])

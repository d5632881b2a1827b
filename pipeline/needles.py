"""What a purge searches for afterwards: frames, spectrogram steps and pieces of media, known by digest alone.

A needle keeps no more of the bytes than eight, the probe, by which a file is searched; where one is found, the digest
of the whole decides. So the search can go on after a kill, when the bytes themselves are gone.
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np

from mbt.pipeline import storage

BLOCK_BYTES = 1 << 16  # of media; each is searched for by itself, so that a part of a file is found too
FRAME, STEP, MEDIA, PACKET = range(4)
NAMES = ("frames", "spectrogram steps", "blocks of media", "packets of media")

_NEEDLE = np.dtype(
    [("probe", "<u8"), ("probe_at", "<u4"), ("length", "<u4"), ("kind", "u1"), ("digest", "V16")], align=False
)
FOLDER = "purge"
_FILE = "needles.npy"
_PROBE_BYTES = 8
_PROBES_TRIED = 64
_DISTINCT = 6  # different bytes in a probe: fewer are found everywhere
_CHUNK_BYTES = 1 << 23
_HASH_BITS = 20
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True)
class Hit:
    """Where a needle was found: a file relative to ROOT, the offset in it, and what the needle is."""

    path: str
    offset: int
    length: int
    kind: int


class Needles:
    """Some needles, each once.

    Attributes:
      table: (needles,) sorted by probe.
      plain: pieces so uniform, such as silence, that they can be told from nobody else's: not searched for.
    """

    def __init__(self, table: np.ndarray, plain: int = 0):
        self.table = np.unique(table)
        self.plain = plain
        self._probes = np.unique(self.table["probe"])
        self._bitmap = np.zeros(1 << _HASH_BITS, bool)
        self._bitmap[_hash(self._probes)] = True

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def of(cls, pieces: Iterable[tuple[int, bytes]]) -> "Needles":
        """Needles of pieces, each of a kind."""
        rows, plain = [], 0
        for kind, piece in pieces:
            if (at := _probe_at(piece)) is None:
                plain += 1
            else:
                probe = int.from_bytes(piece[at : at + _PROBE_BYTES], "little")
                rows.append((probe, at, len(piece), kind, _digest(piece)))
        return cls(np.array(rows, _NEEDLE), plain)

    def __add__(self, other: "Needles") -> "Needles":
        return Needles(np.concatenate([self.table, other.table]), self.plain + other.plain)

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {name: int((self.table["kind"] == kind).sum()) for kind, name in enumerate(NAMES)}

    def search(self, root: str, path: str, on_bytes: Callable[[int], None] = lambda count: None) -> list[Hit]:
        """All places in a file of ROOT where one of them stands whole; `on_bytes` hears how much was read."""
        hits = []
        with storage.open_file(storage.join(root, path)) as file, storage.open_file(storage.join(root, path)) as again:
            for offset, probe in self._probes_in(file, on_bytes):
                for row in self._with(probe):
                    start, length = offset - int(row["probe_at"]), int(row["length"])
                    if start >= 0 and _digest(_read(again, start, length)) == row["digest"].tobytes():
                        hits.append(Hit(path, start, length, int(row["kind"])))
        return hits

    def _probes_in(self, file: BinaryIO, on_bytes: Callable[[int], None]) -> Iterator[tuple[int, int]]:
        """Offset and value of each probe in a file."""
        first, tail = 0, b""
        while chunk := file.read(_CHUNK_BYTES):
            on_bytes(len(chunk))
            data = tail + chunk
            for shift in range(_PROBE_BYTES):
                words = np.frombuffer(data, "<u8", max(0, len(data) - shift) // _PROBE_BYTES, shift)
                maybe = np.flatnonzero(self._bitmap[_hash(words)])
                found = maybe[np.isin(words[maybe], self._probes)]
                yield from zip((first + shift + found * _PROBE_BYTES).tolist(), words[found].tolist(), strict=True)
            # A probe at any of the last bytes may go on in the next chunk.
            tail = data[-(_PROBE_BYTES - 1) :]
            first += len(data) - len(tail)

    def _with(self, probe: int) -> np.ndarray:
        first, last = np.searchsorted(self.table["probe"], [np.uint64(probe)] * 2 + np.array([0, 1], np.uint64))
        return self.table[first:last]


def _hash(words: np.ndarray) -> np.ndarray:
    return ((words * _MULTIPLIER) >> np.uint64(64 - _HASH_BITS)).astype(np.int64)


def _probe_at(piece: bytes) -> int | None:
    """Where in a piece eight bytes stand that are hardly found elsewhere: from its end on, far from a JPEG's tables."""
    last = len(piece) - _PROBE_BYTES
    for place in np.linspace(last, last // 2, _PROBES_TRIED, dtype=int).tolist():
        if place >= 0 and len(set(piece[place : place + _PROBE_BYTES])) >= _DISTINCT:
            return place
    return None


def _digest(piece: bytes) -> bytes:
    return hashlib.sha256(piece).digest()[:16]


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def blocks(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """A media file in pieces."""
    while block := file.read(BLOCK_BYTES):
        yield MEDIA, block


def exists(root: str) -> bool:
    """Whether a purge has begun and not ended."""
    return storage.exists(storage.join(root, FOLDER, _FILE))


def load(root: str) -> Needles:
    """The needles of a purge that was interrupted; none where there was none."""
    if not exists(root):
        return Needles(np.empty(0, _NEEDLE))
    return Needles(np.load(io.BytesIO(storage.read(storage.join(root, FOLDER, _FILE)))))


def save(root: str, needles: Needles) -> None:
    """Keeps needles until `forget`."""
    sink = io.BytesIO()
    np.save(sink, needles.table)
    storage.write(storage.join(root, FOLDER, _FILE), sink.getvalue())


def forget(root: str) -> None:
    """Ends a purge."""
    storage.delete_folder(storage.join(root, FOLDER))

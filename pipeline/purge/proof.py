"""The proof: every file below ROOT is searched for what must not be there any more."""

import collections
import concurrent.futures
import dataclasses
import os

from mbt.pipeline import ledger, media, needles, shard_file, storage, tombstones
from mbt.pipeline.progress import ByteBar
from mbt.pipeline.purge import ban, holders
from mbt.pipeline.purge.scan import Scan
from mbt.schemas import index as shard_index

_THREADS = 8
_STORED = f"{media.FOLDER}/"


@dataclasses.dataclass(frozen=True)
class Searched:
    """How many files with how many bytes were searched, and where something was."""

    num_files: int
    bytes: int
    hits: list[needles.Hit]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What a search of all files below ROOT gave.

    Attributes:
      num_files: that were searched.
      bytes: of them.
      searched: number of pieces by what they are.
      plain: pieces so uniform that they cannot be told from others', such as silence; not searched for.
      hits: pieces that are still there, and should not be.
      shared: clips or their media files, not purged, that hold the very same pieces, to in how many places.
      scan: what decoding the media gave.
      released: stored media that held a part of what was purged, by their packets or decoded, and are gone by now.
      shown: files that do, and lie where no purge deletes.
    """

    num_files: int
    bytes: int
    searched: dict[str, int]
    plain: int
    hits: tuple[needles.Hit, ...]
    shared: dict[str, int]
    scan: Scan
    released: tuple[str, ...]
    shown: tuple[str, ...]

    @property
    def left(self) -> tuple[str, ...]:
        """Files that still hold something, and should not."""
        return tuple(sorted({*(hit.path for hit in self.hits), *self.shown}))


def search(root: str, wanted: needles.Needles) -> Searched:
    """Searches all files of a dataset, with a bar that shows how far that is."""
    files = list(storage.files(root))
    size = sum(file.bytes for file in files)
    with ByteBar(size, "search") as bar, concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda file: wanted.search(root, file.path, bar.add), files)
        return Searched(len(files), size, [hit for there in found for hit in there])


def prove(
    root: str,
    clip_ids: frozenset[str],
    wanted: needles.Needles,
    searched: Searched,
    scan: Scan,
    *,
    purged: tombstones.Spans,
) -> Proof:
    """What both searches gave; stored media that hold a part of the clips in spite of their source are released here.

    Args:
      root: of the dataset.
      clip_ids: of all clips that were ever purged.
      wanted: what was searched for.
      searched: where it was found.
      scan: what decoding the media gave.
      purged: the clips' times.
    """
    holding = {path for path in scan.found if path.startswith(_STORED)}
    holding |= {hit.path for hit in searched.hits if hit.kind == needles.PACKET and hit.path.startswith(_STORED)}
    ban.by_content(root, sorted(holding), scan.moments, purged)
    holders.release_from(root, sorted(holding), clip_ids)
    hits = [hit for hit in searched.hits if hit.path not in holding]
    others = _media_of_others(root, clip_ids) if hits else frozenset()
    owners = [(hit, _owner(root, hit, clip_ids, others)) for hit in hits]
    return Proof(
        num_files=searched.num_files,
        bytes=searched.bytes,
        searched=wanted.counts(),
        plain=wanted.plain,
        hits=tuple(hit for hit, owner in owners if owner is None),
        shared=dict(collections.Counter(owner for _, owner in owners if owner is not None)),
        scan=scan,
        released=tuple(sorted(holding)),
        shown=tuple(sorted(scan.found.keys() - holding)),
    )


def _media_of_others(root: str, clip_ids: frozenset[str]) -> frozenset[str]:
    attempts = ledger.read(root, ["clip_id", "media"])
    pairs = zip(attempts["clip_id"].to_pylist(), attempts["media"].to_pylist(), strict=True)
    return frozenset(path for clip_id, path in pairs if clip_id not in clip_ids)


def _owner(root: str, hit: needles.Hit, clip_ids: frozenset[str], others: frozenset[str]) -> str | None:
    """Whose bytes these are, if not the purged clips': another clip may show the very same frame."""
    folder, _, name = hit.path.partition("/")
    if folder == media.FOLDER:
        return hit.path if hit.path in others else None
    if folder != shard_file.FOLDER or not name.endswith(".tfrecord"):
        return None
    index = shard_index.load(storage.read(storage.join(root, os.path.splitext(hit.path)[0] + ".index")))
    place = int(index.records["offset"].searchsorted(hit.offset, side="right")) - 1
    return f"clip {index.ids[place]}" if place >= 0 and index.ids[place] not in clip_ids else None

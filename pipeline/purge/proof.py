"""The proof: every file below ROOT is searched for what must not be there any more."""

import collections
import concurrent.futures
import dataclasses
import os

from mbt.pipeline import ledger, media, needles, shard_file, storage
from mbt.pipeline.progress import ByteBar
from mbt.schemas import index as shard_index

_THREADS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proof:
    """What a search of all files below ROOT gave.

    Attributes:
      num_files: that were searched.
      bytes: of them.
      searched: number of pieces by what they are.
      plain: pieces so uniform that they cannot be told from others', such as silence; not searched for.
      left: pieces that are still there, and should not be.
      shared: clips or their media files, not purged, that hold the very same pieces, to in how many places.
    """

    num_files: int
    bytes: int
    searched: dict[str, int]
    plain: int
    left: tuple[needles.Hit, ...]
    shared: dict[str, int]


def search(root: str, clip_ids: frozenset[str], wanted: needles.Needles) -> Proof:
    """Searches all files of a dataset, with a bar that shows how far that is.

    Args:
      root: of the dataset.
      clip_ids: of all clips that were ever purged.
      wanted: what to search for.
    """
    files = list(storage.files(root))
    size = sum(file.bytes for file in files)
    with ByteBar(size, "search") as bar, concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda file: wanted.search(root, file.path, bar.add), files)
        hits = [hit for there in found for hit in there]
    others = _media_of_others(root, clip_ids) if hits else frozenset()
    owners = [(hit, _owner(root, hit, clip_ids, others)) for hit in hits]
    return Proof(
        num_files=len(files),
        bytes=size,
        searched=wanted.counts(),
        plain=wanted.plain,
        left=tuple(hit for hit, owner in owners if owner is None),
        shared=dict(collections.Counter(owner for _, owner in owners if owner is not None)),
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

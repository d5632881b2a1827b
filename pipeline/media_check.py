"""Whether the media store holds what the ledger says: the digest of every file of a snapshot's clips."""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import ledger, media, storage
from mbt.pipeline.shard_check import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """A file of the media store.

    Attributes:
      path: relative to ROOT.
      digest: SHA-256 by the ledger, hexadecimal.
      clips: ids of the clips that it was fetched for.
    """

    path: str
    digest: str
    clips: tuple[str, ...]


def stored(root: str, clip_ids: Iterable[str]) -> list[Stored]:
    """The files that the ledger's newest words on these clips name; those that a build deleted are not among them."""
    state = ledger.state(root)
    kept = pc.and_(pc.is_in(state["clip_id"], pa.array(clip_ids, pa.string())), pc.not_equal(state["digest"], ""))
    kept = pc.and_(kept, pc.not_equal(state["signature"], ledger.RELEASED))
    kept = pc.and_(kept, pc.starts_with(state["media"], f"{media.FOLDER}/"))
    clips: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for row in state.select(["clip_id", "media", "digest"]).filter(kept).to_pylist():
        clips[row["media"], row["digest"]].append(row["clip_id"])
    return [Stored(path=path, digest=digest, clips=tuple(ids)) for (path, digest), ids in sorted(clips.items())]


def check(root: str, files: list[Stored], threads: int, on_bytes: Callable[[int], None]) -> list[Problem]:
    """What is wrong with files of the media store; all that are missing are one problem."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = list(zip(files, pool.map(lambda file: _digest(root, file, on_bytes), files), strict=True))
    detail = "its digest is not the ledger's: delete it, and the next build fetches it again"
    problems = [Problem(file=file.path, detail=detail, clips=file.clips) for file, said in found if said == _OTHER]
    detail = "cannot be read: look after its disk, or delete it, and the next build fetches it again"
    problems += [Problem(file=file.path, detail=detail, clips=file.clips) for file, said in found if said == _SILENT]
    if missing := [clip_id for file, said in found if said == _MISSING for clip_id in file.clips]:
        detail = "files are missing: the next build fetches them again"
        problems.append(Problem(file=media.FOLDER, detail=detail, clips=tuple(missing)))
    return problems


_WHOLE, _OTHER, _MISSING, _SILENT = range(4)


def _digest(root: str, file: Stored, on_bytes: Callable[[int], None]) -> int:
    try:
        digest, size = media.digest_of(storage.join(root, file.path))
    except FileNotFoundError:
        return _MISSING
    except OSError:
        return _SILENT
    on_bytes(size)
    return _WHOLE if digest == file.digest else _OTHER

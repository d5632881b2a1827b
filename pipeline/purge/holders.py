"""Which files of the media store hold a part of what is purged, whoever they were fetched for."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import extent, ledger, media, release, runner, storage
from mbt.pipeline.tombstones import Span


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of the media store.

    Attributes:
      path: relative to ROOT.
      bytes: its size.
      source: a source that it came from.
    """

    path: str
    bytes: int
    source: str

    @property
    def start_us(self) -> int:
        """Which time of its source is its zero."""
        return media.start_of(self.path)


def of_sources(root: str, rows: Iterable[Mapping]) -> dict[str, StoredFile]:
    """The files that were stored for clips, also those that the ledger does not know, by their paths.

    Args:
      root: of the dataset.
      rows: source and span of each clip, and `media` where the ledger says it.
    """
    by_key, by_path = {}, {}
    for row in rows:
        by_key[media.key(row["source"], row["start_us"], row["end_us"])] = row["source"]
        by_path[row.get("media") or ""] = row["source"]
    found = {}
    for file in storage.files(storage.join(root, media.FOLDER)):
        path, key = f"{media.FOLDER}/{file.path}", os.path.basename(file.path).partition("-")[0]
        if (source := by_path.get(path) or by_key.get(key)) is not None:
            found[path] = StoredFile(path=path, bytes=file.bytes, source=source)
    return found


def holding(root: str, files: Iterable[StoredFile], spans: Mapping[str, list[Span]], program: str) -> list[StoredFile]:
    """Those that hold a part of a span, by their packets; one of which that cannot be told is among them.

    Args:
      root: of the dataset.
      files: to look at.
      spans: of each source.
      program: the ffmpeg to run.
    """

    def holds(file: StoredFile) -> bool:
        wanted = [span for span in spans[file.source] if span.end_us > span.start_us]
        with storage.local_copy(storage.join(root, file.path)) as copy:
            held = extent.of(copy, program) if wanted else (0, 0)
        return any(extent.overlaps(held, span.start_us - file.start_us, span.end_us - file.start_us) for span in wanted)

    files = list(files)
    with concurrent.futures.ThreadPoolExecutor(runner.cores()) as pool:
        return [file for file, there in zip(files, pool.map(holds, files), strict=True) if there]


def release_from(root: str, paths: Iterable[str], purged: Iterable[str]) -> None:
    """Says in the ledger that these files are not there any more for the clips that stay, and deletes them."""
    paths = list(paths)
    state = ledger.state(root)
    named = pc.is_in(state["media"], pa.array(paths, pa.string()))
    held = pc.and_(named, pc.not_equal(state["signature"], ledger.RELEASED))
    stays = pc.invert(pc.is_in(state["clip_id"], pa.array(sorted(purged), pa.string())))
    words = state.filter(pc.and_(held, stays)).to_pylist()
    if words:
        release.mark(root, ledger.new_run(root), (word | {"id": word["clip_id"]} for word in words))
    storage.delete(*(storage.join(root, path) for path in paths))

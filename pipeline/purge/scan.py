"""Media below ROOT, decoded and compared with what was purged, whatever they are called and wherever they come from."""

import concurrent.futures
import dataclasses
import re
from collections.abc import Collection

from mbt.pipeline import copies, ffmpeg, ledger, media, runner, shard_file, snapshot, storage
from mbt.pipeline.progress import ByteBar
from mbt.pipeline.purge import traces
from mbt.pipeline.purge.traces import Traces

_MEDIA = re.compile(rf".*\.({copies.EXTENSIONS}|m4a|mp3|wav|ogg|oga|flac|aac|opus|mka|bin)", re.IGNORECASE)
_NONE_THERE = (f"{shard_file.FOLDER}/", f"{ledger.FOLDER}/", f"{snapshot.FOLDER}/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scan:
    """What decoding all media gave.

    Attributes:
      num_files: that were decoded.
      num_skipped: that were not, for they are other sources'.
      num_frames: that were looked for.
      num_sounds: runs of sound that were.
      unknown: files that do not decode here, so that nobody knows what they show; relative to ROOT.
      found: files that show or play a part of what was purged, to the numbers of its frames and runs of sound.
      moments: of these files, the times in microseconds at which they do, counted from their zero.
    """

    num_files: int
    num_skipped: int
    num_frames: int
    num_sounds: int
    unknown: tuple[str, ...]
    found: dict[str, tuple[int, int]]
    moments: dict[str, list[tuple[int, int]]] = dataclasses.field(default_factory=dict)


def scan(root: str, wanted: Traces, program: str, only: Collection[str] | None = None) -> Scan:
    """Decodes the media below ROOT.

    Args:
      root: of the dataset.
      wanted: what to look for.
      program: the ffmpeg to run.
      only: the files of the media store that are decoded; None for all.
    """
    every = [file for file in storage.files(root) if _is_media(file.path)]
    files = [file for file in every if only is None or file.path in only or not _is_stored(file.path)]
    if not wanted:
        files = []

    def look(path: str) -> tuple[tuple[int, int], list[tuple[int, int]]] | None:
        try:
            with storage.local_copy(storage.join(root, path)) as copy:
                if (seen := traces.look(copy, program)) is None:
                    return None
                counts = wanted.found_in(seen)
                return counts, traces.times(copy, seen, wanted, program) if any(counts) else []
        except (ffmpeg.WorkerTroubleError, FileNotFoundError):
            return None

    found, moments, unknown = {}, {}, []
    with (
        ByteBar(sum(file.bytes for file in files), "decode") as bar,
        concurrent.futures.ThreadPoolExecutor(runner.cores()) as pool,
    ):
        for file, seen in zip(files, pool.map(look, (file.path for file in files)), strict=True):
            bar.add(file.bytes)
            if seen is None:
                unknown.append(file.path)
            elif any(seen[0]):
                found[file.path], moments[file.path] = seen
    return Scan(
        num_files=len(files),
        num_skipped=len(every) - len(files) if wanted else 0,
        num_frames=len(wanted.frames),
        num_sounds=len(wanted.sounds),
        unknown=tuple(unknown),
        found=found,
        moments=moments,
    )


def _is_stored(path: str) -> bool:
    return path.startswith(f"{media.FOLDER}/")


def _is_media(path: str) -> bool:
    return _is_stored(path) or (_MEDIA.fullmatch(path) is not None and not path.startswith(_NONE_THERE))

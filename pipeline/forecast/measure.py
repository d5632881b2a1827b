"""A small sample of the clips, made into records for real: what they take and what comes out, in a temporary folder."""

import csv
import dataclasses
import itertools
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import canary, ffmpeg, known, ledger, media, plan, storage
from mbt.pipeline.forecast.rates import Measured, Rates, default
from mbt.pipeline.shard import Builder, LackingError
from mbt.schemas.clip import MICROSECONDS
from mbt.schemas.index import Index

_CANARY_ROUNDS = 5
_ROWS_AT_A_TIME = 1024
_SHORTER_SIDES = (240, 360, 480, 720, 1080)  # pixels; the sizes in which videos are commonly published
_SIZE = re.compile(r"^\[info\]   Stream .*: Video: .*?, (\d{2,5})x(\d{2,5})[ ,]", re.MULTILINE)
_SECONDS_AT_MOST = 30.0  # of one clip's decoding, besides twice its own length


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sample:
    """Some clips of about the same size in pixels, made into a shard."""

    measured: Measured
    lengths_s: np.ndarray  # of the clips of which records came
    sizes: np.ndarray  # of these records, bytes
    unusable: int


def rates(valid: pa.Table, root: str, program: str, *, sample: int, threads: int, folder: str) -> Rates:
    """The rates of this machine, and of these clips where some of their media are there.

    CPU time is that of this process and its ffmpeg children. Clips are chosen by the hash of their ids: the same each
    time, and of all kinds.

    Args:
      valid: the clips.
      root: of the dataset.
      program: the ffmpeg to run.
      sample: how many clips at most; with 0 nothing but the canary is timed.
      threads: clips decoded at a time, as in a build.
      folder: a temporary one.

    Raises:
      WorkerTroubleError: this machine failed on a clip.
    """
    canary.digest(program)  # what is done once must not count
    canary_s = min(_cpu_of(lambda: canary.encoded(program)) for _ in range(_CANARY_ROUNDS))
    found = default(canary_s)
    if not sample:
        return found
    start_s = _start_cpu_s(program, folder) - canary_s
    found = dataclasses.replace(found, start_cpu_s=start_s, start_source="a build of the canary alone, timed here")
    groups: dict[str, list[dict]] = {}
    for row in _with_media(valid, root, sample):
        groups.setdefault(_pixels(row, program), []).append(row)
    made = [_made(rows, pixels, program, threads, folder) for pixels, rows in sorted(groups.items())]
    return _with_sample(found, made) if made else found


def _with_sample(found: Rates, made: list[_Sample]) -> Rates:
    clips, seconds = (sum(getattr(each.measured, name) for each in made) for name in ("clips", "seconds"))
    lengths, sizes = (np.concatenate([getattr(each, name) for each in made]) for name in ("lengths_s", "sizes"))
    source = f"{clips} clips of {seconds:.0f} s measured here"
    found = dataclasses.replace(
        found,
        cpu_s=sum(each.measured.cpu_s for each in made) / seconds,
        cpu_source=source,
        unusable=sum(each.unusable for each in made) / clips,
        measured=tuple(each.measured for each in made),
    )
    if not len(sizes):
        return found
    return dataclasses.replace(
        found,
        record_bytes=float(sizes.sum() / lengths.sum()),
        record_error=_error_of_ratio(sizes, lengths),
        bytes_source=source,
    )


def _error_of_ratio(sizes: np.ndarray, lengths: np.ndarray) -> float | None:
    """Two standard errors of the ratio of two sums over a sample, relative to it."""
    if (count := len(sizes)) < 2:
        return None
    ratio = sizes.sum() / lengths.sum()
    spread = math.sqrt(((sizes - ratio * lengths) ** 2).sum() / (count - 1) / count)
    return float(2 * spread / sizes.mean())


def _with_media(valid: pa.Table, root: str, most: int) -> list[dict]:
    """The first clips, by the hash of their ids, whose media are there, as a builder takes them."""
    found = known.of(valid, ledger.state(root))
    stored = pc.is_in(found["media"], value_set=pa.array(list(media.listing(root).values()), pa.string()))
    clips = valid.append_column("stored", stored)
    for name in ("media", "media_start_us"):
        clips = clips.append_column(name, found[name])
    clips = clips.filter(pc.or_(stored, pc.invert(known.is_remote(valid)))).sort_by("key")
    rows = (_row(clip, root) for batch in clips.to_batches(_ROWS_AT_A_TIME) for clip in batch.to_pylist())
    return list(itertools.islice(filter(None, rows), most))


def _row(clip: dict, root: str) -> dict | None:
    """None where a file on this machine is not there."""
    path, start_us = clip["source"], 0
    if clip["stored"]:
        path, start_us = storage.join(root, clip["media"]), clip["media_start_us"]
    elif not os.path.isfile(path):
        return None
    indices = list(range(len(clip["labels"])))
    return clip | {"source": path, "media": "", "media_start_us": start_us, "label_indices": indices}


def _pixels(row: dict, program: str) -> str:
    """The range into which the shorter side of a clip's pictures falls."""
    with storage.local_copy(row["source"]) as path:
        words = ["-hide_banner", "-nostdin", "-v", "level+info", "-protocol_whitelist", "file", "-i", f"file:{path}"]
        words[-1] = words[-1].replace("{", "{{").replace("}", "}}")
        try:
            log = ffmpeg.run(program, words, outputs=0, byte_limit=0, time_limit_s=_SECONDS_AT_MOST).log
        except ffmpeg.WorkerTroubleError:
            return "unknown"
    if not (match := _SIZE.search(log)):
        return "unknown"
    side = min(int(match[1]), int(match[2]))
    return next((f"up to {limit}" for limit in _SHORTER_SIDES if side <= limit), f"over {_SHORTER_SIDES[-1]}")


def _made(rows: list[dict], pixels: str, program: str, threads: int, folder: str) -> _Sample:
    """A shard of these clips, and what it took: the digest of each file, which a fetch or a build takes, is counted."""
    builder = Builder(
        root=folder,
        dataset_name="sample",
        media_root=folder,
        program=program,
        threads=threads,
        time_limit_s=_SECONDS_AT_MOST,
    )
    indices: list[Index] = []

    def make() -> None:
        digested = [plan.with_digests(row | {"digest": _digest(row)}, "sample", folder) for row in rows]
        stem = f"sample-{pixels.replace(' ', '-')}"
        try:
            built = builder.rebuild(stem, digested, None)
        except LackingError as error:
            left_out = {clip.id for clip in error.left_out}
            built = builder.rebuild(stem, [row for row in digested if row["id"] not in left_out], None)
        indices.append(built.index)

    cpu_s = _cpu_of(make)
    (index,) = indices
    seconds = {row["id"]: (row["end_us"] - row["start_us"]) / MICROSECONDS for row in rows}
    return _Sample(
        measured=Measured(
            pixels=pixels, clips=len(rows), seconds=sum(seconds.values()), cpu_s=cpu_s, bytes=index.shard_bytes
        ),
        lengths_s=np.array([seconds[clip] for clip in index.ids]),
        sizes=index.records["length"].astype(np.float64),
        unusable=len(rows) - len(index.ids),
    )


def _digest(row: dict) -> str:
    with storage.local_copy(row["source"]) as path:
        return media.digest_of(path)[0]


def _start_cpu_s(program: str, folder: str) -> float:
    """CPU time of a whole `mbt-data build` of one clip, the canary."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        annotations = os.path.join(inner, "canary.csv")
        with open(annotations, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [["video_path", "start", "end", "label"], [os.path.abspath(canary.MEDIA), 0, 1, "canary"]]
            )
        words = ["build", f"--annotations={annotations}", f"--output={os.path.join(inner, 'out')}"]
        command = [sys.executable, "-m", "mbt.pipeline.main", *words, f"--ffmpeg={program}"]
        return _cpu_of(lambda: _run(command, os.environ | {"TMPDIR": inner}))


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ffmpeg.WorkerTroubleError(f"a build of one clip failed here ({done.stderr.strip()[-200:]})")


def _cpu_of(work) -> float:
    before = sum(_cpu_times())
    work()
    return sum(_cpu_times()) - before


def _cpu_times() -> Iterator[float]:
    """User and system time of this process, and of its children that have ended."""
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        yield usage.ru_utime + usage.ru_stime

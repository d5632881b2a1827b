"""The two ways of a film's span to a record: the file in place, and fetched from a server into the media store."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from mbt.pipeline import download, storage, tombstones, youtube
from mbt.pipeline.breaker import Breaker
from mbt.pipeline.budget import Budget
from mbt.pipeline.decode import Decoded, UnusableError, decode
from mbt.pipeline.errors import WorkerTroubleError
from mbt.pipeline.fetch import Fetcher
from mbt.pipeline.hosts import Hosts
from mbt.pipeline.proxies import Proxies
from mbt.schemas.clip import Outcome

Span = tuple[int, int]


def local(path: Path, span: Span, program: str) -> Decoded | UnusableError:
    """Decodes as a build does; what it would try again for ever is an error of its own."""
    try:
        return decode(str(path), *span, program=program)
    except UnusableError as error:
        return error
    except WorkerTroubleError as error:
        return UnusableError("worker_trouble", str(error))


def fetched(
    url: str, spans: Sequence[Span], root: Path, program: str, on_media: Callable[[Path, int], None] | None = None
) -> list[Decoded | UnusableError]:
    """Fetches the clips of one source, and decodes what the store then has of each.

    Args:
      url: of the source.
      spans: of the clips, in microseconds.
      root: of the store.
      program: the ffmpeg to run.
      on_media: called with each stored file and the time of the source that is its zero.
    """
    rows = [_row(url, span) for span in spans]
    came: list[Decoded | UnusableError] = []
    for row, _, got in _fetcher(root, program).fetch(rows):
        if got.outcome != Outcome.OK:
            came.append(UnusableError(got.reason, f"{got.outcome}: {got.detail}"))
            continue
        media = Path(storage.join(str(root), got.media))
        if on_media:
            on_media(media, got.media_start_us)
        start_us, end_us = (max(0, row[name] - got.media_start_us) for name in ("start_us", "end_us"))
        came.append(local(media, (start_us, end_us), program))
    return came


def _row(url: str, span: Span) -> dict:
    times = {"start_us": span[0], "end_us": span[1]}
    return {"id": f"{span}", "source": url, "copy": "", "known_outcome": "", "failing": False} | times


def _fetcher(root: Path, program: str) -> Fetcher:
    work = root / "runs" / "1"
    work.mkdir(parents=True, exist_ok=True)
    return Fetcher(
        root=str(root),
        work=str(work),
        program=program,
        youtube=youtube.Settings(ffmpeg=program),
        limits=download.Limits(),
        budget=Budget(2, folder=str(work)),
        proxies=Proxies([]),
        breaker=Breaker(str(work)),
        probes=threading.Semaphore(1),
        purged=tombstones.Spans(),
        hosts=Hosts(allow_private=True),
    )

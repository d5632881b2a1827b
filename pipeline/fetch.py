"""A source to the media of its clips: downloaded once, probed, cut, stored; with a typed outcome for every attempt."""

import contextlib
import dataclasses
import hashlib
import os
import random
import re
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from mbt.pipeline import (
    attempts,
    disk,
    download,
    exchange,
    extent,
    leftovers,
    media,
    probe,
    storage,
    storms,
    tombstones,
    youtube,
)
from mbt.pipeline.breaker import Breaker
from mbt.pipeline.budget import Budget
from mbt.pipeline.cut import cut
from mbt.pipeline.decode import UnusableError
from mbt.pipeline.errors import WorkerTroubleError
from mbt.pipeline.hosts import PUBLIC, Hosts
from mbt.pipeline.ledger import RELEASED
from mbt.pipeline.outcomes import MAX_DETAIL, Failure, FetchError, StopError, internal_error
from mbt.pipeline.passes import Span
from mbt.pipeline.proxies import AllRestingError, Proxies
from mbt.pipeline.sources import is_url, stays_in_place
from mbt.schemas.clip import MICROSECONDS, Outcome
from mbt.schemas.regular import NotAFileError, open_file

BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
# A file that is this much longer than its clip is cut: what nobody reads is not kept.
CUT_FROM_US = 20 * MICROSECONDS
# A lab's copy whose name has no time is the clip if it is not longer than this, and else the whole video.
_COPY_SLACK_US = MICROSECONDS
_IN_STORE = f"{media.FOLDER}/"
_CHUNK_BYTES = 1 << 20
_URL = re.compile(r"https?://\S+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetched:
    """How one attempt for one clip ended.

    Attributes:
      outcome: of the attempt.
      reason: one word, stable; "" where the outcome is ok.
      detail: a sentence for a person.
      bytes: size of the media.
      digest: SHA-256 of the media, hexadecimal.
      media: where the media lie: below ROOT, or a local path.
      media_start_us: which time of the source is time zero of the media.
      signature: size and modification time of a local file, to notice that it changed; or `RELEASED`.
      tools: what fetched it.
    """

    outcome: Outcome
    reason: str = ""
    detail: str = ""
    bytes: int = 0
    digest: str = ""
    media: str = ""
    media_start_us: int = 0
    signature: str = ""
    tools: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Arrived:
    """A whole file that came from somewhere, on this machine."""

    path: str
    starts_at_us: int = 0
    tools: str = ""
    is_whole: bool = True  # or what came until the server closed, which may be all


_PAGE = "a web page came in the place of media; does the source want a login?"
_PAGE_BEGINS = (b"<!doctype html", b"<html")

Attempts = Iterator[tuple[dict, int, Fetched]]
_Made = TypeVar("_Made")


def settled(outcome: str, reason: str) -> bool:
    """Whether an outcome stands for a source that is not on this machine, without another attempt.

    A page instead of media may be a login or an error that passes.
    """
    if outcome == Outcome.INVALID:
        return reason == tombstones.PURGED
    return outcome in (Outcome.OK, Outcome.GONE) or (outcome == Outcome.UNUSABLE and reason != storms.NOT_MEDIA)


def signature(path: str) -> str:
    """Changes when a local file does."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def local(path: str, max_bytes: int) -> Fetched:
    """Takes note of a file that stays where it is, and is no larger than `max_bytes`."""
    before = signature(path)
    try:
        with open_file(path, buffering=0) as file:
            there = os.fstat(file.fileno()).st_size
            if there > max_bytes:
                detail = f"{path} has {there} bytes, over the limit of {max_bytes}"
                return Fetched(outcome=Outcome.UNUSABLE, reason="too_large", detail=detail)
            digest, size = _digest_of(file, there)
    except FileNotFoundError:
        return Fetched(outcome=Outcome.TRANSIENT, reason="missing", detail=f"{path}: no such file")
    except NotAFileError as error:
        return Fetched(outcome=Outcome.INVALID, reason="not_a_file", detail=f"{path} {error.strerror}")
    except OSError as error:
        return Fetched(outcome=Outcome.TRANSIENT, reason="unreadable", detail=f"{path}: {error.strerror}")
    if not size:
        return Fetched(outcome=Outcome.UNUSABLE, reason="empty", detail=f"{path} has 0 bytes")
    return Fetched(outcome=Outcome.OK, bytes=size, digest=digest, media=path, signature=before)


def _digest_of(file: BinaryIO, size: int) -> tuple[str, int]:
    """SHA-256 and size of a file, of which no more is read than it had: some, such as those of /proc, have no end."""
    digest, left = hashlib.sha256(), size
    while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest(), size - left


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetcher:
    """What all fetches of a worker process share.

    Attributes:
      root: of the dataset.
      work: folder of the run's temporary files, below `root`.
      program: the ffmpeg to run.
      youtube: how YouTube is asked.
      limits: of a download.
      budget: of this machine.
      proxies: to rotate.
      breaker: of the run.
      probes: how many may decode at a time.
      hosts: where URLs may lead.
      purged: what no file of the media store may hold.
      time_limit_s: of decoding one clip.
      on_bytes: called with the size of what came.
    """

    root: str
    work: str
    program: str
    youtube: youtube.Settings
    limits: download.Limits
    budget: Budget
    proxies: Proxies
    breaker: Breaker
    probes: threading.Semaphore
    purged: tombstones.Spans
    time_limit_s: float = probe.TIME_LIMIT_S
    hosts: Hosts = PUBLIC
    on_bytes: Callable[[int], None] = lambda count: None

    def fetch(self, rows: list[dict]) -> Attempts:
        """Gets the media of the clips of one source; yields (row, number of the attempt, how it ended).

        Clips that were not tried, because the run is to stop, are not yielded.
        """
        source = rows[0]["source"]
        copies = [row for row in rows if row["copy"]]
        wanted = [row for row in rows if not row["copy"]]
        if wanted and stays_in_place(source):
            fetched = local(source, self.limits.max_bytes)
            yield from ((row, 1, fetched) for row in wanted)
            wanted = []
        try:
            for row in copies:
                adopted = _on_its_own(self._adopted, row)
                if adopted is not None:
                    yield row, 1, adopted
                elif row["copy"].startswith(_IN_STORE):
                    wanted.append(row)
            if wanted:
                yield from self._fetched(source, wanted)
        except StopError as error:
            self.breaker.trip(str(error))
        except OSError as error:  # of our disk; of a source's it has become an outcome
            if not disk.is_trouble(error):
                raise
            self.breaker.trip(disk.said(error, self.work))

    def _fetched(self, source: str, rows: list[dict]) -> Attempts:
        """Downloads with retries."""
        pending = list(rows)
        attempt = 0
        while self.breaker.tripped(source) is None:
            attempt += 1
            try:
                with self._spool() as folder:
                    arrived = self._download(source, rows, folder)
                    while pending:
                        kept = _on_its_own(self._kept, pending[0], arrived, len(rows) > 1)
                        self._heard(rows, kept, came=kept.reason != "cut_short")
                        yield pending[0], attempt, kept
                        pending.pop(0)
                return
            except FetchError as error:
                failure = error.failure
            failed = _failed(failure)
            self._heard(rows, failed)
            yield from ((row, attempt, failed) for row in pending)
            if attempt >= failure.tries:
                return
            self._back_off(source, attempt, failure)

    def _heard(self, rows: list[dict], fetched: Fetched, *, came: bool = False) -> None:
        """Tells the breaker what was heard of these clips' source.

        What came, and cannot be decoded by this machine now, is no failure of its host.
        """
        known = rows[0]["known_outcome"] if all(row["failing"] for row in rows) else ""
        outcome = Outcome.OK if came and fetched.outcome == Outcome.TRANSIENT else fetched.outcome
        self.breaker.record(rows[0]["source"], outcome, fetched.reason, fetched.detail, known)

    def _back_off(self, source: str, attempt: int, failure: Failure) -> None:
        """Waits, longer each time, at random so that threads that failed together do not return together."""
        wait_s = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
        until = time.monotonic() + max(wait_s, min(failure.retry_after_s or 0.0, LONGEST_BACKOFF_S))
        while (left_s := until - time.monotonic()) > 0 and self.breaker.tripped(source) is None:
            time.sleep(min(left_s, 0.5))

    def _download(self, source: str, rows: list[dict], folder: str) -> _Arrived:
        """One attempt to get a whole source."""
        video = youtube.video_id(source)
        with self.budget.download(paced=video is not None):
            try:
                proxy = self.proxies.next()
            except AllRestingError as error:
                raise StopError(str(error)) from error
            try:
                arrived = self._arrived(source, video, rows, folder, proxy)
            except FetchError as error:
                if error.failure.outcome == Outcome.BLOCKED:
                    self.proxies.rest(proxy, error.failure.retry_after_s)
                raise
        self.breaker.arrived(source)
        return arrived

    def _arrived(self, source: str, video: str | None, rows: list[dict], folder: str, proxy: str | None) -> _Arrived:
        if video is not None:
            spans = [(row["start_us"], row["end_us"]) for row in rows]
            span = (min(start for start, _ in spans), max(end for _, end in spans))
            got = youtube.download(video, span, folder, self.youtube, proxy, self.on_bytes)
            return _Arrived(path=got.path, starts_at_us=got.starts_at_us, tools=got.tools)
        path = os.path.join(folder, f"download{_extension(source)}")
        if is_url(source):
            is_whole = download.download(source, path, self.limits, proxy, self.on_bytes, self.hosts)
            return _Arrived(path=path, tools=exchange.TOOL, is_whole=is_whole)
        self.on_bytes(_copied(source, path, self.limits.max_bytes))
        return _Arrived(path=path)

    def _adopted(self, row: dict) -> Fetched | None:
        """Takes media that are already there: stored by a run that was killed, or a lab's own copy.

        None where what the store holds is not whole, or the copy is no better than what is known of the clip.
        """
        if row["copy"].startswith(_IN_STORE):
            path = storage.join(self.root, row["copy"])
            digest, size = media.digest_of(path)
            if not media.is_whole(path, digest):
                storage.delete(path)
                return None
            storage.flush_folder(os.path.dirname(path))  # which the run that was killed may not have come to
            start_us = media.start_of(path)
            if self._is_passing(path, row["source"], digest, start_us):
                storage.delete(path)  # stored before the purge, by a run that was killed
                return None
            return Fetched(outcome=Outcome.OK, bytes=size, digest=digest, media=row["copy"], media_start_us=start_us)
        try:
            with self._spool() as folder:
                fetched = self._copy_kept(row, folder)
        except (FetchError, OSError, WorkerTroubleError) as error:
            if disk.is_full(error) or (disk.is_trouble(error) and self._is_ours(error)):
                raise
            fetched = Fetched(outcome=Outcome.TRANSIENT, reason=storms.BAD_COPY, detail=type(error).__name__)
        if fetched.outcome == Outcome.OK:
            return fetched
        if settled(row["known_outcome"], ""):
            return None
        # A bad copy says nothing about the clip.
        why = f"{row['copy']}: {fetched.reason} {fetched.detail}".strip()
        return Fetched(outcome=Outcome.TRANSIENT, reason=storms.BAD_COPY, detail=why, tools="import")

    def _is_ours(self, error: BaseException) -> bool:
        """Whether an error names a file of the dataset, and not a lab's."""
        return str(getattr(error, "filename", "")).startswith((f"{self.root}/", f"{self.work}/"))

    def _copy_kept(self, row: dict, folder: str) -> Fetched:
        """Puts a lab's copy into the store, by a hard link where the file system can."""
        path = os.path.join(folder, f"copy{_extension(row['copy'])}")
        if not storage.is_local(row["copy"]):
            _copied(row["copy"], path, self.limits.max_bytes)
        else:
            original = os.path.realpath(row["copy"])
            if not stat.S_ISREG(os.stat(original).st_mode):
                return Fetched(outcome=Outcome.TRANSIENT, reason=storms.BAD_COPY, detail="not a file")
            try:
                os.link(original, path)
            except OSError:
                _copied(original, path, self.limits.max_bytes)
        starts_at_us = row["start_us"] if row["copy_is_clip"] or self._is_clip(path, row) else 0
        return self._kept(row, _Arrived(path=path, starts_at_us=starts_at_us, tools="import"), False)

    def _is_clip(self, path: str, row: dict) -> bool:
        """Whether a file without a time in its name is cut: it is as short as the clip, or ends before that begins."""
        length_us = probe.times(path, self.program, self.time_limit_s).duration_us
        if length_us is None:
            return True
        return length_us <= row["end_us"] - row["start_us"] + _COPY_SLACK_US or length_us <= row["start_us"]

    def _kept(self, row: dict, arrived: _Arrived, several: bool) -> Fetched:
        """Probes the clip's span of a file, cuts it out where that saves much, and stores it."""
        try:
            with self.probes:
                path, start_us = self._part(row, arrived, several=several)
            digest, size = media.digest_of(path)
            extension = os.path.splitext(path)[1][1:]
            name = media.name(media.key(row["source"], row["start_us"], row["end_us"]), digest, start_us, extension)
            purged = self.purged.of_media(row["source"], digest, start_us)
            if any(span.shares_half(row["start_us"], row["end_us"]) for span in purged):
                detail = f"these media are a purged clip's: {tombstones.FILE} says why"
                return Fetched(outcome=Outcome.INVALID, reason=tombstones.PURGED, detail=detail, tools=arrived.tools)
            is_passing = self._is_passing(path, row["source"], digest, start_us)
            # Media that hold what was purged are there for a build of this run, and go with its temporary files.
            media.store(self.work if is_passing else self.root, name, path, keep=path == arrived.path and several)
        except UnusableError as error:
            if not arrived.is_whole:
                return Fetched(outcome=Outcome.TRANSIENT, reason="cut_short", detail=f"not known to be whole: {error}")
            detail = _PAGE if error.reason == storms.NOT_MEDIA and _is_page(arrived.path) else error.detail
            return Fetched(outcome=Outcome.UNUSABLE, reason=error.reason, detail=detail, tools=arrived.tools)
        # Says nothing of the source's server, nor of its other clips.
        except attempts.PassingError as error:
            return Fetched(outcome=Outcome.TRANSIENT, reason=error.reason, detail=str(error), tools=arrived.tools)
        except WorkerTroubleError as error:
            return Fetched(outcome=Outcome.TRANSIENT, reason="probe_failed", detail=str(error), tools=arrived.tools)
        return Fetched(
            outcome=Outcome.OK,
            bytes=size,
            digest=digest,
            media=name,
            media_start_us=start_us,
            signature=RELEASED if is_passing else "",
            tools=arrived.tools,
        )

    def _is_passing(self, path: str, source: str, digest: str, start_us: int) -> bool:
        """Whether a file whose zero is that time of its source may hold a part of what was purged."""
        if self.purged.may_hold(source, digest):
            return True
        if not (purged := self.purged.of_media(source, digest, start_us)):
            return False
        with storage.local_copy(path) as copy:
            held = extent.of(copy, self.program)
        return any(extent.overlaps(held, span.start_us - start_us, span.end_us - start_us) for span in purged)

    def _part(self, row: dict, arrived: _Arrived, *, several: bool) -> tuple[str, int]:
        """The file to keep, and which time of the source is its zero."""
        start_us, end_us = row["start_us"] - arrived.starts_at_us, row["end_us"] - arrived.starts_at_us
        probed = self._probe(arrived.path, start_us, end_us)
        length_us = probed.media_us
        if not several and (length_us is None or length_us < end_us - start_us + CUT_FROM_US):
            return arrived.path, arrived.starts_at_us
        target = os.path.join(os.path.dirname(arrived.path), f"cut-{uuid.uuid4().hex}.mp4")
        span = Span(path=arrived.path, start_us=max(0, start_us), duration_us=end_us - max(0, start_us))
        with contextlib.suppress(WorkerTroubleError):  # what this machine cannot cut stays whole
            if (made := cut(span, probed, target, self.program, self.time_limit_s)) is not None:
                return made.path, arrived.starts_at_us + made.zero_us
        disk.check_room(os.path.dirname(target))  # or it was for want of room that ffmpeg wrote nothing
        return arrived.path, arrived.starts_at_us

    def _probe(self, path: str, start_us: int, end_us: int) -> probe.Probed:
        return attempts.tried(lambda: probe.probe(path, max(0, start_us), end_us, self.program, self.time_limit_s))

    @contextlib.contextmanager
    def _spool(self) -> Iterator[str]:
        """A folder for what is not whole yet, on the file system of the store where that is local."""
        parent, prefix = None, leftovers.prefix("spool")
        if storage.is_local(self.work):
            parent, prefix = storage.join(self.work, "spool"), "fetch-"
            os.makedirs(parent, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder:
            yield folder


def _is_page(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE_BEGINS)


def _on_its_own(work: Callable[..., _Made], *what: Any) -> _Made | Fetched:
    """What work on one clip gives: trouble that nobody foresaw is its outcome, and says nothing of the next clip."""
    try:
        return work(*what)
    except (FetchError, StopError):
        raise
    except Exception as error:
        if disk.is_trouble(error):
            raise
        return _failed(internal_error(error))


def _failed(failure: Failure) -> Fetched:
    return Fetched(outcome=failure.outcome, reason=failure.reason, detail=failure.detail)


def _copied(source: str, path: str, max_bytes: int) -> int:
    """Copies a file from this machine or a store; an OSError is that of the disk that is written to."""
    size = 0
    with disk.naming(path), open(path, "wb") as writer:
        for chunk in _chunks(source):
            size += writer.write(chunk)
            if size > max_bytes:
                detail = f"over the limit of {max_bytes} bytes"
                raise FetchError(Failure(outcome=Outcome.UNUSABLE, reason="too_large", detail=detail, tries=1))
    disk.check_size(path, size)
    return size


def _chunks(source: str) -> Iterator[bytes]:
    try:
        with storage.open_file(source) as reader:
            while chunk := reader.read(_CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise FetchError(
            Failure(outcome=Outcome.TRANSIENT, reason="missing", detail=f"{source}: no such file", tries=1)
        ) from error
    except storage.errors() as error:
        raise FetchError(store_failure(error)) from error
    except OSError as error:
        detail = f"{source}: {error.strerror}"
        raise FetchError(Failure(outcome=Outcome.TRANSIENT, reason="unreadable", detail=detail, tries=1)) from error


def store_failure(error: Exception) -> Failure:
    """How an attempt ended that a store refused, after its client has tried again where that helps."""
    detail = _URL.sub("...", storage.said(error))[:MAX_DETAIL]
    return Failure(outcome=Outcome.TRANSIENT, reason="unreadable", detail=detail, tries=1)


def _extension(source: str) -> str:
    """The source's file name extension, where it is an ordinary one."""
    extension = os.path.splitext(source.partition("?")[0])[1]
    return extension.lower() if extension[1:].isalnum() and extension.isascii() and len(extension) <= 6 else ""

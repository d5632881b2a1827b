"""Plain http(s): one URL to one local file, resumed by ranges, inside limits of size and time (see `exchange.py`)."""

import dataclasses
import os
import time
from collections.abc import Callable

from mbt.pipeline import disk
from mbt.pipeline.bounds import Bounds
from mbt.pipeline.exchange import READ_TIMEOUT_S, Answer, Exchange, bad_encoding, too_slow, transient
from mbt.pipeline.hosts import PUBLIC, Hosts
from mbt.pipeline.outcomes import ONCE, Failure, FetchError, classify_status
from mbt.schemas.clip import Outcome

MAX_BYTES = 2 << 30
TIME_LIMIT_S = 900.0
ASK_TIME_LIMIT_S = 60.0
SLOWEST_BYTES_PER_SECOND = 1000
_PATIENCE_S = 30.0  # before a server counts as too slow
RESUMES = 3
_RESUMABLE = ("connection", "cut_short", "proxy", "tls")
_MAX_DIGITS = 18  # of a number of bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a server's time and bytes one download may take.

    Attributes:
      max_bytes: of the file.
      time_limit_s: from the look-up of the name to the last byte, redirects and resumptions included.
      read_timeout_s: of one read.
      bytes_per_second: of the download, or None.
    """

    max_bytes: int = MAX_BYTES
    time_limit_s: float = TIME_LIMIT_S
    read_timeout_s: float = READ_TIMEOUT_S
    bytes_per_second: int | None = None


def download(  # noqa: PLR0917 - as `youtube.download`
    url: str,
    path: str,
    limits: Limits,
    proxy: str | None = None,
    on_bytes: Callable[[int], None] = lambda count: None,
    hosts: Hosts = PUBLIC,
) -> bool:
    """Fetches a URL into a new file; returns whether it is known to be whole.

    A connection that is cut is taken up again where it broke, if the server can (RFC 9110, sections 13.1.5 and 14).

    Args:
      url: http or https.
      path: of the file to make; nothing is left there on failure.
      limits: of size, time and speed.
      proxy: URL of a proxy, or None for the environment's.
      on_bytes: called with the size of every piece that came.
      hosts: where it may come from.

    Raises:
      FetchError: with what became of it.
    """
    with Bounds(limits.time_limit_s, hosts) as bounds:
        transfer = _Transfer(url, path, limits, Exchange(bounds, proxy, limits.read_timeout_s), on_bytes)
        try:
            return transfer.run()
        finally:
            transfer.close()


def head(
    url: str, proxy: str | None = None, hosts: Hosts = PUBLIC, time_limit_s: float = ASK_TIME_LIMIT_S
) -> Failure | None:
    """Asks whether a URL could be downloaded now; None where it could, else what became of it."""
    try:
        with Bounds(time_limit_s, hosts) as bounds:
            exchange = Exchange(bounds, proxy, min(READ_TIMEOUT_S, time_limit_s))
            with exchange.open("HEAD", url, {}) as answer:
                status = answer.status
            if status in (405, 501):  # a server that knows no HEAD
                with exchange.open("GET", url, {"Range": "bytes=0-0"}) as answer:
                    status = answer.status
        return None if status in (200, 206) else classify_status(status, answer.headers)
    except FetchError as error:
        return error.failure


class _Transfer:
    """One download: what has come so far, and how the rest is asked for."""

    def __init__(self, url: str, path: str, limits: Limits, exchange: Exchange, on_bytes: Callable[[int], None]):
        self._url = url
        self._path = path
        self._limits = limits
        self._exchange = exchange
        self._on_bytes = on_bytes
        self._started = time.monotonic()
        self._size = 0
        self._total: int | None = None
        self._validator = ""
        self._encoding = ""
        self._done = False
        self._sure = False

    def run(self) -> bool:
        """All of it."""
        with disk.naming(self._path), open(self._path, "wb", buffering=0) as file:
            for resumes in range(RESUMES + 1):
                try:
                    while not self._receive(file):
                        self._check_limits()  # a server may send less than it was asked for
                    break
                except FetchError as error:
                    again = error.failure.reason in _RESUMABLE and resumes < RESUMES
                    if not (again and self._size and self._validator):
                        raise
        if not self._size:
            raise FetchError(transient("empty", "the server sent 0 bytes"))
        disk.check_size(self._path, self._size)
        self._done = True
        return self._sure and not self._exchange.bounds.surplus

    def close(self) -> None:
        """Leaves nothing that is not whole."""
        if not self._done and os.path.exists(self._path):
            os.unlink(self._path)

    def _receive(self, file) -> bool:
        """One request; returns whether the file is complete."""
        headers = {"Accept-Encoding": "identity"}
        if self._size:
            headers |= {"Range": f"bytes={self._size}-", "If-Range": self._validator}
        with self._exchange.open("GET", self._url, headers) as answer:
            self._begin(answer, file)
            before = self._size
            while piece := answer.read():
                disk.write_all(file, piece)
                self._size += len(piece)
                self._on_bytes(len(piece))
                self._check_limits()
        if self._total is not None and self._size > self._total:
            raise FetchError(transient("bad_range", f"{self._size} of {self._total} bytes came"))
        # What was put together of parts, or decoded, is as right as the server's word for it.
        self._sure = answer.status == 200 and not answer.encoding and (self._total is not None or answer.is_chunked)
        whole = self._total is None or self._size >= self._total
        if not whole and (answer.status == 200 or self._size == before):
            raise FetchError(transient("cut_short", f"{self._size} of {self._total} bytes came"))
        return whole

    def _begin(self, answer: Answer, file) -> None:
        """Checks the status, and where the bytes that follow belong."""
        if answer.status not in (200, 206):
            raise FetchError(classify_status(answer.status, answer.headers))
        answer.check_encoding()
        self._encoding = answer.encoding
        if answer.status == 206:
            if answer.encoding:
                raise FetchError(bad_encoding(f"{answer.encoding[:40]!a}, a part of it"))
            first, total = _content_range(answer.headers.get("Content-Range", ""))
            if first != self._size or total is None:
                raise FetchError(transient("bad_range", f"asked for byte {self._size}, the server sent from {first}"))
            if self._size and (total != self._total or _tag(answer) != self._validator):
                raise FetchError(transient("changed", "the file changed while it was being downloaded"))
            self._total = total
        else:
            file.truncate(0)
            file.seek(0)
            self._size = 0
            counted = not answer.encoding and not answer.is_chunked  # which overrides a length
            self._total = _number(answer.headers.get("Content-Length", "")) if counted else None
        if self._total is not None and self._total > self._limits.max_bytes:
            raise FetchError(self._too_large(f"{self._total} bytes"))
        self._validator = "" if answer.encoding else _tag(answer)

    def _check_limits(self) -> None:
        seconds = time.monotonic() - self._started
        if self._size > self._limits.max_bytes:
            raise FetchError(self._too_large("it does not end"))
        if seconds > self._limits.time_limit_s:
            raise FetchError(too_slow(self._exchange.bounds))
        slowest = min(SLOWEST_BYTES_PER_SECOND, (self._limits.bytes_per_second or SLOWEST_BYTES_PER_SECOND) / 4)
        if seconds > _PATIENCE_S and self._size < slowest * seconds:
            raise FetchError(transient("too_slow", f"{self._size} bytes in {seconds:.0f} s"))
        if self._limits.bytes_per_second:
            wait_s = self._size / self._limits.bytes_per_second - seconds
            time.sleep(min(max(0.0, wait_s), self._limits.time_limit_s - seconds))

    def _too_large(self, what: str) -> Failure:
        detail = f"{what}, over the limit of {self._limits.max_bytes} bytes"
        if self._encoding:  # as a file that was never asked for in this form
            return bad_encoding(f"{self._encoding[:40]!a}: {detail}")
        return Failure(outcome=Outcome.UNUSABLE, reason="too_large", detail=detail, tries=ONCE)


def _tag(answer: Answer) -> str:
    """What tells one version of a file from another: a strong ETag, or a date (RFC 9110, section 8.8)."""
    strong = answer.headers.get("ETag", "")
    return strong if strong.startswith('"') else answer.headers.get("Last-Modified", "")


def _number(text: str) -> int | None:
    """A number of bytes, where it is one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def _content_range(text: str) -> tuple[int, int | None]:
    """First byte and total size, from `bytes 0-499/1234`."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first, size = _number(span.partition("-")[0]), _number(total)
    if unit != "bytes" or first is None or (size is None and total != "*"):
        raise FetchError(transient("bad_range", "the server sent a part and did not say which"))
    return first, size

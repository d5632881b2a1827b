"""An answer over http whose lines are bounded, and which tells where its server goes on after the end."""

import contextlib
import http.client
import re
import socket
from collections.abc import Iterator
from typing import Any

from mbt.pipeline import bounds as bounds_lib

MAX_HEAD_BYTES = 1 << 18  # of all that comes before a body, or after it; browsers admit as much
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_INTERIM = range(102, 200)  # 100 is skipped by `http.client`, 101 is an answer
_MAX_LINE_BYTES = 1 << 16
# The parts of it that are replaced here have no types.
_HTTPResponse: Any = http.client.HTTPResponse


class HeadTooLongError(Exception):
    """A server does not come to its point."""


class _Lines:
    """The lines before a body, or after it, up to a limit."""

    def __init__(self, reader: Any, *, may_end: bool):
        self.reader = reader
        self._may_end = may_end
        self._left = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        line = self.reader.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise HeadTooLongError
        if not line and not self._may_end:  # else it would count as whole
            raise http.client.RemoteDisconnected("in the middle of a head")
        return line

    def close(self) -> None:
        self.reader.close()


class Response(_HTTPResponse):
    """One whose head and chunks are bounded, and that notices what follows after its end."""

    fp: Any

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any):
        super().__init__(sock, *arguments, **options)
        self._socket = sock
        self._bounds = bounds_lib.current()

    def begin(self) -> None:
        """Reads the head."""
        with self._few_lines(may_end=False):
            super().begin()

    def _read_and_discard_trailer(self) -> None:
        with self._few_lines(may_end=True):  # as http.client has it
            super()._read_and_discard_trailer()

    @contextlib.contextmanager
    def _few_lines(self, *, may_end: bool) -> Iterator[None]:
        lines = self.fp = _Lines(self.fp, may_end=may_end)
        try:
            yield
        finally:
            if self.fp is lines:
                self.fp = lines.reader

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()
        while status in _INTERIM:
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()
        return version, status, reason

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(_MAX_LINE_BYTES + 1)
        if not (size := _CHUNK_SIZE.fullmatch(line.partition(b";")[0].strip())):
            self._close_conn()
            raise ValueError("no size of a chunk")  # it becomes an IncompleteRead
        return int(size[0], 16)

    def _close_conn(self) -> None:
        if self.fp is not None and self.length == 0 and self._method != "HEAD" and self._more():
            self._bounds.surplus = True
        super()._close_conn()

    def _more(self) -> bool:
        """Whether the server goes on after the length that it announced."""
        timeout_s = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            return bool(self.fp.peek(1))
        except OSError:  # TLS says so of nothing
            return False
        finally:
            self._socket.settimeout(timeout_s)

"""A web server on loopback that serves real files, and misbehaves on request."""

import collections
import contextlib
import http.server
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote

PRIVATE = "--allow_private_hosts"  # of a command whose rows name a server on this machine
_HUGE_BYTES = 10_000_000_000
_LOGIN = b"<!doctype html><html><body><form>Who are you?</form></body></html>"


class MediaServer(http.server.ThreadingHTTPServer):
    """Serves `files` (name to bytes) with ranges; the first folder of a path names how it misbehaves.

    `/404/x.mp4` answers with that status; `/stall/x.mp4` sends half and then nothing; `/silent/x` never answers;
    `/cut/x` closes half way, each time a little later; `/cut_once/x` the first time only; `/loop/x` redirects to
    itself; `/to/x?http://elsewhere` redirects there; `/short/x` promises more than it sends; `/huge/x` promises 10 GB;
    `/part/x` sends a part unasked, of an unknown total, and `/nothing/x` an empty one; `/other/x` is cut, and goes on
    as another file; `/endless/x` promises nothing and never ends; `/trickle/x` sends a byte now and then. Every request
    waits `latency_s`, and while `gate` is closed.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.heads: list[str] = []
        self.hosts: list[str] = []  # that the requests were for
        self.complete: collections.Counter = collections.Counter()
        self.latency_s = 0.0
        self.refuse_from: int | None = None  # the number of the request from which on everything is `refuse_with`
        self.refuse_with: int | str = 429  # or "reset" a connection, or send a "page" to log in
        self.retry_after: str | None = None
        self.closing = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.lock = threading.Lock()
        self.at_a_time = 0
        self.most_at_a_time = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that went away is what the tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MediaServer

    def do_HEAD(self) -> None:
        path = self._path()
        self.server.heads.append(path.name)
        how = path.parts[0] if len(path.parts) > 1 else ""
        body = self.server.files.get(path.name)
        self._head(int(how) if how.isdigit() else 404 if body is None else 200, len(body or b""))

    def _path(self) -> PurePosixPath:
        """Without the server that a client names to its proxy."""
        path = self.path.partition("?")[0]
        if path.startswith("http://"):
            path = path.split("/", 3)[3]
        return PurePosixPath(path.lstrip("/"))

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append(self.path.lstrip("/"))
            self.server.hosts.append(self.headers.get("Host", ""))
            number = len(self.server.requests)
            self.server.at_a_time += 1
            self.server.most_at_a_time = max(self.server.most_at_a_time, self.server.at_a_time)
        try:
            time.sleep(self.server.latency_s)
            self.server.gate.wait()
        finally:
            with self.server.lock:
                self.server.at_a_time -= 1
        with contextlib.suppress(ConnectionError):
            if self.server.refuse_from is not None and number >= self.server.refuse_from:
                self._refuse(self.server.refuse_with)
            else:
                self._answer()

    def _refuse(self, how: int | str) -> None:
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif how == "page":
            self._head(200, len(_LOGIN))
            self.wfile.write(_LOGIN)
        else:
            self._status(int(how))

    def _answer(self) -> None:
        path = self._path()
        body = self.server.files.get(path.name)
        how = path.parts[0] if len(path.parts) > 1 else ""
        if how.isdigit():
            self._status(int(how))
        elif how in ("loop", "to"):
            self._redirect(self.path if how == "loop" else unquote(self.path.partition("?")[2]))
        elif how == "silent":
            self.server.closing.wait()
        elif how in ("part", "nothing"):
            length = 1000 if how == "part" else 0
            total = "*" if how == "part" else "300000"
            self._head(206, length, {"Content-Range": f"bytes 0-999/{total}"})
            self.wfile.write(b"x" * length)
        elif how == "huge":
            self._head(200, _HUGE_BYTES)
            self.wfile.write(b"x" * 1000)
        elif how in ("endless", "trickle"):
            self._endless(b"x" * (1 << 16) if how == "endless" else b"x", 0.0 if how == "endless" else 0.05)
        elif body is None:
            self._status(404)
        else:
            self._send(path.name, body, how)

    def _send(self, name: str, body: bytes, how: str) -> None:
        first = 0
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
        half = first + (len(body) - first) // 2
        tag = {"ETag": '"other"' if how == "other" and wanted else '"whole"'}
        if wanted:
            self._head(206, len(body) - first, tag | {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"})
        else:
            self._head(200, len(body) + 1000 * (how == "short"), tag if how != "short" else {})
        if how == "cut" or (how in ("cut_once", "other") and not wanted):
            self.wfile.write(body[first:half])
            self.close_connection = True
        elif how == "other" and wanted:
            self.wfile.write(body[first:])  # under another tag
        elif how == "stall":
            self.wfile.write(body[first:half])
            self.wfile.flush()
            self.server.closing.wait()
        else:
            self.wfile.write(body[first:])
            self.close_connection = how == "short"
            self.server.complete[name] += 1

    def _endless(self, piece: bytes, pause_s: float) -> None:
        self._head(200, None, {"Connection": "close"})
        while not self.server.closing.wait(pause_s):
            self.wfile.write(piece)
            self.wfile.flush()

    def _status(self, status: int) -> None:
        headers = {"Retry-After": self.server.retry_after} if self.server.retry_after and status in (429, 503) else {}
        self._head(status, 0, headers)

    def _redirect(self, target: str) -> None:
        self._head(301, 0, {"Location": target})

    def _head(self, status: int, length: int | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({} if length is None else {"Content-Length": str(length)} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[MediaServer]:
    """A server that runs in a thread of this process."""
    with MediaServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.closing.set()
        server.gate.set()
        server.shutdown()

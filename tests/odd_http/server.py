"""A server on raw sockets that says byte for byte what it is told to, to whoever asks.

What it says is a list of steps: bytes are sent, a number of seconds is waited for, `RESET` and `CLOSE` end the
connection, `KEEP` holds it open, and a list within is said again and again for as long as anybody listens.
"""

import contextlib
import dataclasses
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Any

RESET, CLOSE, KEEP = "reset", "close", "keep"
Steps = Sequence[Any]
_LONGEST_HEAD = 1 << 20


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]
    url: str


class Server:
    """Answers `/NAME/...` with the steps that `says[NAME](request)` returns; a context manager.

    One with a greeting says that, and listens to nobody.
    """

    def __init__(
        self,
        says: dict[str, Callable[[Request], Steps]],
        tls: ssl.SSLContext | None = None,
        greeting: Steps | None = None,
    ):
        self.says = says
        self._greeting = greeting
        self.requests: list[Request] = []
        self.accepted = 0
        self._tls = tls
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.settimeout(0.1)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            connection.settimeout(30)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                if self._greeting is not None:
                    self._say(connection, self._greeting)
                    return
                while (request := self._read(connection)) is not None and self._say(connection, self._steps(request)):
                    pass

    def _steps(self, request: Request) -> Steps:
        self.requests.append(request)
        say = self.says.get(request.path.partition("?")[0].split("/")[1])
        return say(request) if say else (CLOSE,)

    def _read(self, connection: socket.socket) -> Request | None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece or len(head) > _LONGEST_HEAD:
                return None
            head += piece
        first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Request(method, path, headers, self.url)

    def _say(self, connection: socket.socket, steps: Steps) -> bool:
        """Whether the connection is still there for another request."""
        for step in steps:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, int | float):
                if self._closing.wait(step):
                    return False
            elif isinstance(step, list):
                while not self._closing.is_set():
                    if not self._say(connection, step):
                        return False
            elif step == KEEP:
                return True
            else:
                if step == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
        return True

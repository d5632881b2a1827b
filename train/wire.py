"""Messages between the processes of a run: JSON objects, one a line, over TCP."""

import contextlib
import json
import socket
import threading

from mbt.schemas import own_json

# A peer that takes no more bytes than this long is as good as dead; its silence will be noticed.
SEND_TIMEOUT_S = 5.0
LONGEST = 1 << 16


class Connection:
    """An open connection to another process."""

    def __init__(self, opened: socket.socket):
        opened.settimeout(SEND_TIMEOUT_S)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = opened
        self._rest = b""
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, **message: object) -> None:
        """Sends a message. That the other side is gone is learnt where it is listened to."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict] | None:
        """The messages that have arrived, once there is something to read; None when the other side is gone."""
        try:
            data = self._socket.recv(LONGEST)
            *lines, self._rest = (self._rest + data).split(b"\n")
            messages = [own_json.parse(line) for line in lines]
        except (OSError, ValueError):  # reset, or a stranger who speaks something else
            return None
        strange = len(self._rest) > LONGEST or not all(isinstance(message, dict) for message in messages)
        return None if not data or strange else messages

    def finish(self) -> None:
        """Says that nothing more will be sent; what was sent still arrives."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends it."""
        self._socket.close()

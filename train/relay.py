"""Keeps the end of process 0 from JAX, whose client would end this process by SIGABRT in the moment it sees it.

The client connects to a port of this machine, from where all bytes go to process 0 and back. When process 0 dies, the
client's connection just falls silent, and `watch.Watch` has the time to say what happened.
"""

import contextlib
import socket
import threading
import time

CONNECT_S = 60.0
RETRY_S = 0.1


def relay(host: str, port: int) -> int:
    """Starts to relay, until this process ends; returns the port of the loopback interface to connect to."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(server, host, port), name="relay", daemon=True).start()
    return server.getsockname()[1]


def _serve(server: socket.socket, host: str, port: int) -> None:
    kept = []  # a socket that nobody refers to would be closed
    while True:
        client, _ = server.accept()
        far = _connect(host, port)
        if far is None:
            client.close()
            continue
        kept += [client, far]
        for source, sink in ((client, far), (far, client)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_pump, args=(source, sink), name="relay", daemon=True).start()


def _connect(host: str, port: int) -> socket.socket | None:
    deadline = time.monotonic() + CONNECT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return socket.create_connection((host, port))
        time.sleep(RETRY_S)  # process 0 has not started JAX's service yet
    return None


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)

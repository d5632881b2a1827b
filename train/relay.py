"""Keeps the end of process 0 from JAX, whose client would end this process by SIGABRT in the moment it sees it.

The client connects to a port of this machine, from where all bytes go to process 0 and back. When process 0 dies, the
client's connection just falls silent, and `watch.Watch` has the time to say what happened.

The relay is a process of its own, started as `python relay.py HOST PORT`: JAX holds the interpreter's lock while it
waits for the others to agree on the step to stop after, which they do over this connection. Threads would wait for it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

CONNECT_S = 60.0
RETRY_S = 0.1

_relays: list[subprocess.Popen] = []  # whose standard input stays open as long as this process lives


def relay(host: str, port: int) -> int:
    """Starts to relay, until this process ends; returns the port of the loopback interface to connect to."""
    words = [sys.executable, "-I", "-S", __file__, host, str(port)]
    # A session of its own: Ctrl-C is for this process, which may want to save something first.
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    _relays.append(process)
    assert process.stdout is not None
    return int(process.stdout.readline())


def _main(host: str, port: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a scheduler tells all processes
        signal.signal(number, signal.SIG_IGN)
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(server, host, port), daemon=True).start()
    print(server.getsockname()[1], flush=True)
    sys.stdin.buffer.read()  # returns when the process that started this one is gone
    os._exit(0)


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
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


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


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))

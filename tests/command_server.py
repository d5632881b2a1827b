"""Runs `mbt-data` as a process without the seconds of imports: a server has them behind it, and forks.

A child is a process in all that a command can tell: pid, arguments, folder, environment, streams, and the interpreter's
own end. It differs in two ways: its parent is the server, and the seed of its hashes is the server's. Tests of what a
kill leaves, and of the program's own start, start the program.

    python tests/command_server.py DESCRIPTOR    of a socket, over which a socket comes for each command
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("mbt-data")
_ALSO = ("apache_beam.runners.portability.fn_api_runner", "imageio_ffmpeg", "pyarrow.dataset")  # imported in a build
_MOST_BYTES = 1 << 20  # of a request


class CommandServer:
    """A server, as the tests see it; a context manager."""

    def __init__(self):
        self._channel, other = socket.socketpair()
        with other:
            command = [sys.executable, __file__, str(other.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()
        self._process.wait()

    def run(
        self, words: list[str], env: Mapping[str, str], cwd: str | os.PathLike = ".", timeout: float = 500
    ) -> subprocess.CompletedProcess:
        """Runs a command to its end.

        Raises:
          subprocess.TimeoutExpired: it was killed, for it took longer than `timeout` seconds.
        """
        request = {"words": [str(PROGRAM), *words], "env": dict(env), "cwd": os.path.abspath(cwd)}
        with (
            tempfile.TemporaryFile("w+") as output,
            tempfile.TemporaryFile("w+") as errors,
            open(os.devnull) as nothing,
        ):
            streams = [stream.fileno() for stream in (nothing, output, errors)]
            returncode = self._run(request, streams, timeout)
            for stream in (output, errors):
                stream.seek(0)
            return subprocess.CompletedProcess(request["words"], returncode, output.read(), errors.read())

    def _run(self, request: dict, streams: list[int], timeout: float) -> int:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(self._channel, [b"."], [theirs.fileno()])
            socket.send_fds(ours, [json.dumps(request).encode() + b"\n"], streams)
            with ours.makefile("r") as answers:
                pid = int(answers.readline())
                ours.settimeout(timeout)
                try:
                    return int(answers.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(request["words"], timeout) from None


def _load() -> None:
    import mbt.pipeline

    for module in pkgutil.walk_packages(mbt.pipeline.__path__, "mbt.pipeline."):
        if module.name != "mbt.pipeline.youtube_process":  # never in the command's own process
            importlib.import_module(module.name)
    for name in _ALSO:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy all that it looks at


def _serve(channel: socket.socket) -> None:
    """Forks for each command; returns in the children only."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries those that have waited
    while True:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not descriptors:
            os._exit(0)
        if os.fork() == 0:
            channel.close()
            return _start(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _start(asker: socket.socket) -> None:
    """Forks again: waits for the child and tells how it ended; returns in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, streams, _, _ = socket.recv_fds(asker, _MOST_BYTES, 3)
    while not data.endswith(b"\n"):
        data += asker.recv(_MOST_BYTES)
    if pid := os.fork():
        for stream in streams:
            os.close(stream)
        asker.sendall(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        asker.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    asker.close()
    _become(json.loads(data), streams)


def _become(request: dict, streams: list[int]) -> None:
    """Makes this process what it would be had the program been started."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    tempfile.tempdir = None
    sys.argv[:] = request["words"]
    sys.path[0] = str(PROGRAM.parent)


if __name__ == "__main__":
    _load()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from mbt.pipeline.main import main

    sys.exit(main())

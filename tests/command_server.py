"""Runs `mbt-data` or `mbt-train` as a process without the seconds of imports: a server has them behind it, and forks.

A child is a process in all that a command can tell: pid, arguments, folder, environment, streams, and the interpreter's
own end. It differs in two ways: its parent is the server, and the seed of its hashes and what libraries read from the
environment as they are loaded are the server's (but for JAX, which is told of its variables again). Tests of those, and
of the program's own start, start the program.

    python tests/command_server.py PROGRAM DESCRIPTOR    of a socket, over which a socket comes for each command
"""

import contextlib
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

_ALSO = ("apache_beam.runners.portability.fn_api_runner", "imageio_ffmpeg", "pyarrow.dataset")  # imported in a build
_MOST_BYTES = 1 << 20  # of a request


def _pair(kind: int) -> tuple[socket.socket, socket.socket]:
    """Sockets that wait, whatever default of timeouts a library has set in this process: the server would not know."""
    pair = socket.socketpair(type=kind)
    for end in pair:
        end.setblocking(True)
    return pair


class Running:
    """A child of the server, with the part of `subprocess.Popen` that tests need."""

    def __init__(self, channel: socket.socket, request: dict, streams: list[IO[bytes]]):
        self.args = request["words"]
        self._streams = streams
        self.returncode: int | None = None
        self._answers, theirs = _pair(socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(channel, [b"."], [theirs.fileno()])
        descriptors = [stream.fileno() for stream in streams]
        socket.send_fds(self._answers, [json.dumps(request).encode()], descriptors)
        self.pid = self._answer(None)

    def wait(self, timeout: float | None = None) -> int:
        """The status it ended with.

        Raises:
          subprocess.TimeoutExpired: it goes on.
        """
        if self.returncode is None:
            try:
                self.returncode = self._answer(timeout)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._answers.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits; what was said on stdout and on stderr, of one that is listened to.

        Raises:
          subprocess.TimeoutExpired: it goes on.
        """
        self.wait(timeout)
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode())
            stream.close()
        _, output, errors = texts
        return output, errors

    def poll(self) -> int | None:
        """The status it ended with, if it has."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # of a moment ago
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Asks it to end, unless it has."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def _answer(self, timeout: float | None) -> int:
        self._answers.settimeout(timeout)
        answer = self._answers.recv(64)
        assert answer, f"the server of commands failed: {self.args}"
        return int(answer)


class CommandServer:
    """A server, as the tests see it, which call it; a context manager."""

    def __init__(self, program: str):
        """`program` is `mbt-data` or `mbt-train`."""
        self._program = str(Path(sys.executable).with_name(program))
        self._channel, other = _pair(socket.SOCK_STREAM)
        with other:
            command = [sys.executable, __file__, self._program, str(other.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[other.fileno()], stdin=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()
        self._process.wait()

    def __call__(self, *words: object, **options) -> subprocess.CompletedProcess:
        """Runs the program with these words to its end; `options` are those of `python`."""
        return self._complete(None, words, **options)

    def python(self, code: str, *words: object, **options) -> subprocess.CompletedProcess:
        """Runs a program of its own, as `python -c` would.

        Args:
          code: the program.
          words: its arguments.
          options: env, more variables of the environment; cwd, its folder; timeout, seconds until it is killed.

        Raises:
          subprocess.TimeoutExpired: it took longer.
        """
        return self._complete(code, words, **options)

    def start(self, *words: object, **options) -> Running:
        """Starts the program; nobody reads what it says."""
        with open(os.devnull, "r+b") as nothing:
            return self._start(None, words, [nothing] * 3, **options)

    def listen(self, *words: object, **options) -> Running:
        """Starts the program; its `communicate` must be called, which tells what it said."""
        return self._listen(None, words, **options)

    def listen_python(self, code: str, *words: object, **options) -> Running:
        """The same with a program of its own."""
        return self._listen(code, words, **options)

    def _complete(self, code, words, timeout: float = 500, **options) -> subprocess.CompletedProcess:
        running = self._listen(code, words, **options)
        try:
            running.wait(timeout)
        finally:
            running.kill()
            texts = running.communicate()
        return subprocess.CompletedProcess(running.args, running.wait(), *texts)

    def _listen(self, code, words, **options) -> Running:
        return self._start(code, words, [tempfile.TemporaryFile() for _ in range(3)], **options)

    def _start(
        self,
        code: str | None,
        words: tuple[object, ...],
        streams: list[IO[bytes]],
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike = ".",
    ) -> Running:
        request = {
            "code": code,
            "words": [self._program if code is None else "-c", *map(str, words)],
            "env": os.environ | (env or {}),
            "cwd": os.path.abspath(cwd),
        }
        return Running(self._channel, request, streams)


def _load(program: str) -> Callable[[], int]:
    """Imports what the program may; returns its main function."""
    if program == "mbt-data":
        _load_all("mbt.pipeline", but="mbt.pipeline.youtube_process")  # never in the command's own process
        for name in _ALSO:
            importlib.import_module(name)
    else:
        importlib.import_module("mbt.train.main").settle_tensorflow()
        _load_all("mbt.train")
    gc.freeze()  # a collection in a child would copy all that it looks at
    return importlib.import_module("mbt.pipeline.main" if program == "mbt-data" else "mbt.train.main").main


def _load_all(package: str, but: str = "") -> None:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if module.name != but:
            importlib.import_module(module.name)


def _serve(channel: socket.socket) -> str | None:
    """Forks for each command; returns in the children only: the code to run, or None."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries those that have waited
    while True:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
        if not descriptors:
            os._exit(0)
        if os.fork() == 0:
            channel.close()
            return _attend(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _attend(asker: socket.socket) -> str | None:
    """Forks again: waits for the child and tells how it ended; returns in the child."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, streams, _, _ = socket.recv_fds(asker, _MOST_BYTES, 3)
    if pid := os.fork():
        for stream in streams:
            os.close(stream)
        asker.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            asker.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    asker.close()
    return _become(json.loads(data), streams)


def _become(request: dict, streams: list[int]) -> str | None:
    """Makes this process what it would be had the program been started."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    tempfile.tempdir = None
    if "jax" in sys.modules:
        _tell_jax({name: value for name, value in os.environ.items() if before.get(name) != value})
    sys.argv[:] = request["words"]
    sys.path[0] = str(Path(sys.executable).parent)
    return request["code"]


def _tell_jax(variables: dict[str, str]) -> None:
    """JAX read its variables when it was loaded."""
    import jax

    for name, value in variables.items():
        if name.startswith("JAX_"):
            option = name.lower()
            is_number = isinstance(jax.config.values[option], bool | int | float)
            jax.config.update(option, type(jax.config.values[option])(float(value)) if is_number else value)


if __name__ == "__main__":
    _main = _load(Path(sys.argv[1]).name)
    _code = _serve(socket.socket(fileno=int(sys.argv[2])))
    if _code is not None:
        exec(_code)
    else:
        sys.exit(_main())

"""Runs the processes of a run on this machine, to try out what several hosts would do."""

import contextlib
import ctypes
import functools
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from mbt.train.errors import INTERRUPTED, TERMINATED, LostError
from mbt.train.launch import host_command

POLL_S = 0.1
# The others end by themselves as soon as they learn of a death; what does not is stopped, or stuck.
GRACE_S = 15.0
SHOWN_LINES = 5
PR_SET_PDEATHSIG = 1
# A signal that came before the process was ready for it ended it without more ado.
_TOLD = {-signal.SIGTERM: TERMINATED, -signal.SIGINT: INTERRUPTED}
# How a process ends that need not worry the others: all of them do.
_IN_ORDER = (0, TERMINATED)


def run(command: list[str], count: int) -> int:
    """Runs a command as several processes, which see each other alone, on CPUs unless JAX_PLATFORMS says otherwise.

    What process 0 prints is seen; of the others, the last lines where they fail.

    Returns:
      The exit status of the first process that did not end well: 75 where it was killed; 0 where all ended well.
    """
    coordinator = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        logs = [pathlib.Path(folder) / f"{me}.log" for me in range(count)]
        processes: list[subprocess.Popen] = []
        try:
            with _forwarded(processes) as told:
                for me in range(count):
                    processes.append(_start(host_command(command, coordinator, count, me), logs[me] if me else None))
                    for number in told:  # while it was started
                        processes[me].send_signal(number)
                statuses = _wait(processes)
        finally:
            for process in processes:
                process.kill()
        for me, status in statuses.items():
            if me and status not in _IN_ORDER:
                _show(me, status, logs[me])
    status = next((status for status in statuses.values() if status != 0), 0)
    if status and signal.SIGINT in told:
        return INTERRUPTED  # a Python that is interrupted while it starts ends with 1
    return _TOLD.get(status, LostError.status) if status < 0 else status


def _start(words: list[str], log: pathlib.Path | None) -> subprocess.Popen:
    # A session of its own: Ctrl-C comes here alone, and is passed on.
    with open(log, "wb") if log else contextlib.nullcontext() as output:
        return subprocess.Popen(
            [sys.executable, "-m", "mbt.train.main", *words[1:]],
            env={"JAX_PLATFORMS": "cpu"} | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=functools.partial(_die_with, os.getpid()),  # noqa: PLW1509  the launcher has no threads
        )


def _die_with(launcher: int) -> None:
    """Where the system is Linux: not even kill -9 of the launcher leaves a process behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:  # it died before that
            os._exit(1)


@contextlib.contextmanager
def _forwarded(processes: list[subprocess.Popen]) -> Iterator[list[int]]:
    """SIGTERM and Ctrl-C are for the processes: the launcher ends when they do. Yields which have come."""
    told: list[int] = []

    def forward(number: int, _frame: object) -> None:
        told.append(number)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: list[subprocess.Popen]) -> dict[int, int]:
    """Waits until all have ended; the status of each by its number, in the order in which they ended."""
    ended: dict[int, int] = {}
    deadline = None
    while len(ended) < len(processes):
        for me, process in enumerate(processes):
            if me not in ended and process.poll() is not None:
                ended[me] = process.returncode
        if deadline is None and any(status not in _IN_ORDER for status in ended.values()):
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(POLL_S)
    return ended


def _show(me: int, status: int, log: pathlib.Path) -> None:
    lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    print(f"process {me} ended {how}", *(f"[{me}] {line}" for line in lines), sep="\n", file=sys.stderr)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]

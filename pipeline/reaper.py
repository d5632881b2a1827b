"""Child processes that die with this process, also after kill -9.

All children are put into the process group of a small shell, which waits for the end of a pipe that only this process
holds open. When this process ends, however it does, the shell kills its group and with it all of them.
"""

import atexit
import os
import subprocess
import threading

_lock = threading.Lock()
_reapers: dict[int, tuple[subprocess.Popen, int]] = {}  # by the process that holds the pipe


def group() -> int:
    """The process group to start children in."""
    with _lock:
        known = _reapers.get(os.getpid())
        if known is None or known[0].poll() is not None:
            _reapers[os.getpid()] = known = _start()
        return known[0].pid


def _start() -> tuple[subprocess.Popen, int]:
    read_end, write_end = os.pipe()
    shell = subprocess.Popen(
        ["/bin/sh", "-c", "read _; kill -KILL 0"],
        stdin=read_end,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    os.close(read_end)
    return shell, write_end


@atexit.register
def _end() -> None:
    """What is left ends with this process anyway; so the shell is waited for."""
    if known := _reapers.pop(os.getpid(), None):
        shell, write_end = known
        os.close(write_end)
        shell.wait()

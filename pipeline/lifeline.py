"""A worker dies with the process that started it, also after kill -9."""

import functools
import os
import threading
import time

_INTERVAL_S = 0.2


@functools.cache
def hold(launcher: int) -> None:
    """Ends this process when the launching process has gone; does nothing in the launcher itself.

    Workers are grandchildren or children of the launcher; ffmpeg processes, in turn, die with the worker.

    Args:
      launcher: process id of the command that a person started on this machine.
    """
    if os.getpid() != launcher:
        threading.Thread(target=_watch, args=(launcher, os.getppid()), daemon=True).start()


def _watch(launcher: int, parent: int) -> None:
    while os.getppid() == parent and _alive(launcher):
        time.sleep(_INTERVAL_S)
    os._exit(1)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

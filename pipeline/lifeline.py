"""A worker dies with the process that started it, also after kill -9; and that ends when a worker is killed."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator

_INTERVAL_S = 0.2
_PREFIX = "worker-"
# Workers end before the runner returns. One that is gone for so long was killed, and the runner waits for it for ever.
_GRACE_S = 20.0


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


def register(folder: str, launcher: int) -> None:
    """Tells the launcher, by a file in a folder that it made, of this worker process."""
    if os.getpid() != launcher:
        with open(os.path.join(folder, f"{_PREFIX}{os.getpid()}"), "w", encoding="ascii"):
            pass


def is_registration(name: str) -> bool:
    """Whether a file in that folder is a worker's."""
    return name.startswith(_PREFIX)


@contextlib.contextmanager
def watching(folder: str, on_loss: Callable[[int], None]) -> Iterator[None]:
    """Calls `on_loss` with the id of a worker process that was killed, as the kernel does when memory runs out."""
    ended = threading.Event()

    def watch() -> None:
        gone: dict[int, float] = {}
        while not ended.wait(1.0):
            for name in filter(is_registration, os.listdir(folder)):
                process = int(name.removeprefix(_PREFIX))
                if not _alive(process) and time.monotonic() - gone.setdefault(process, time.monotonic()) > _GRACE_S:
                    on_loss(process)
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

"""This process's temporary files: one folder of the temporary folder, which goes with the process, or with the next.

Beam, ffmpeg's inputs and copies of media leave files in TMPDIR when the process is killed, some of which hold frames.
So everything goes into a folder that the process keeps locked, and each process removes those that nobody keeps.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

_PREFIX = "mbt-data-"
_TRIES = 100
_own: str | None = None


@contextlib.contextmanager
def folder() -> Iterator[None]:
    """For the block, this process and its children make temporary files in a folder that goes with them."""
    global _own
    base, before, told = machine_folder(), tempfile.tempdir, os.environ.get("TMPDIR")
    _own, lock = _made(base)
    tempfile.tempdir = os.environ["TMPDIR"] = _own
    try:
        _remove_left_over(base)
        yield
    finally:
        remove()
        os.close(lock)
        tempfile.tempdir, _own = before, None
        del os.environ["TMPDIR"]
        if told is not None:
            os.environ["TMPDIR"] = told


def remove() -> None:
    """Removes the folder at once, for a handler of signals that ends the process."""
    if _own is not None:
        shutil.rmtree(_own, ignore_errors=True)


def machine_folder() -> str:
    """The temporary folder that all processes of this machine share; also in a child, which was told of ours."""
    told = tempfile.gettempdir()
    return os.path.dirname(told) if os.path.basename(told).startswith(_PREFIX) else told


def _made(base: str) -> tuple[str, int]:
    for _ in range(_TRIES):
        own = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
        lock = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # of a file system without locks: then nobody removes it either
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.isdir(own):
            return own, lock
        os.close(lock)  # another process took it for one that was left, in the moment before it was locked
    raise OSError(f"no temporary folder can be kept in {base}")


def _remove_left_over(base: str) -> None:
    """Removes what processes of this user left behind that were killed."""
    with os.scandir(base) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in found:
        with contextlib.suppress(OSError):  # another removes it, or it is another user's
            _remove_if_left(path)


def _remove_if_left(path: str) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(lock)
        if status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)

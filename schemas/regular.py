"""Opens regular files only: a pipe makes its reader wait for ever, a device may do anything."""

import errno
import os
import stat
from typing import BinaryIO


class NotAFileError(OSError):
    """There is something else at a path: a folder, a pipe, a socket or a device."""

    def __init__(self, path: str):
        super().__init__(errno.EINVAL, "is a folder, a pipe or a device", path)


def open_descriptor(path: str) -> int:
    """Opens a regular file for reading; the caller closes the descriptor.

    Raises:
      FileNotFoundError: there is none.
      NotAFileError: there is something else.
    """
    _check(os.stat(path), path)  # first, for opening alone can make a device do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), path)  # again, for another may have taken its place
    except NotAFileError:
        os.close(descriptor)
        raise
    return descriptor


def open_file(path: str, buffering: int = -1) -> BinaryIO:
    """Opens a regular file for reading; raises as `open_descriptor`."""
    return open(open_descriptor(path), "rb", buffering=buffering)


def read(path: str) -> bytes:
    """A whole regular file; raises as `open_descriptor`."""
    with open_file(path) as file:
        return file.read()


def _check(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFileError(path)

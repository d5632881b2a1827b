"""What a power cut must not undo: the bytes of a file first, then its name in the folder, then that of the folder."""

import contextlib
import errno
import io
import os
from collections.abc import Iterable
from typing import Any

# What says that a file system has nothing to flush for a folder: a disk that fails says otherwise.
_NO_SUCH_THING = (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.EISDIR)


def flush(path: str) -> None:
    """Puts the bytes of a file on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(file)


def flush_folder(folder: str) -> None:
    """Puts the names in a folder on the disk, and that others are gone; of one that is not there, nothing."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            flush(folder or ".")
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise


def flush_folders_of(paths: Iterable[str]) -> None:
    """Puts on the disk that these files are there, or are gone; each folder once."""
    for folder in sorted({os.path.dirname(path) for path in paths}):
        flush_folder(folder)


def make_folder(folder: str) -> None:
    """Makes a folder and those above it that are missing, each so that it stays."""
    new = []
    while not os.path.isdir(folder or "."):
        new.append(folder)
        folder = os.path.dirname(folder)
    for folder in reversed(new):
        with contextlib.suppress(FileExistsError):  # made by another in this moment
            os.mkdir(folder)
        flush_folder(os.path.dirname(folder))


class Flushed(io.BufferedWriter):
    """A new file for writing that is on the disk when it is closed; one that is a symbolic link is refused."""

    def __init__(self, path: str):
        self._path = path
        super().__init__(io.FileIO(path, "wb", opener=_not_through_links))

    def close(self) -> None:
        """Flushes what is left, and the disk's own cache."""
        if self.closed:
            return
        try:
            self.flush()
            os.fsync(self.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error
        finally:
            with contextlib.suppress(OSError):  # the same again
                super().close()

    def write(self, data: Any) -> int:
        """As ever; an error names the file."""
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error


def _not_through_links(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise link_error(path) if error.errno == errno.ELOOP else error from error


def link_error(path: str) -> OSError:
    """What is said of a symbolic link in the place of a file or folder that is to be written."""
    return OSError(errno.ELOOP, f"{path} is a symbolic link, which is not followed for writing: remove it", path)

"""What a power cut must not undo: the bytes of a file first, then its name in the folder, then that of the folder.

Nothing is written through a symbolic link, which in a folder that others write may lead to any file of ours.
"""

import contextlib
import errno
import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

# What says that a file system has nothing to flush for a folder: a disk that fails says otherwise.
_NO_SUCH_THING = (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.EISDIR)

Path = str | os.PathLike[str]


def flush(path: Path) -> None:
    """Puts the bytes of a file on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        os.close(file)


def flush_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk, and that others are gone; of one that is not there, nothing."""
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            flush(os.fspath(folder) or ".")
    except OSError as error:
        if error.errno not in _NO_SUCH_THING:
            raise


def flush_folders_of(paths: Iterable[Path]) -> None:
    """Puts on the disk that these files are there, or are gone; each folder once."""
    for folder in sorted({os.path.dirname(path) for path in paths}):
        flush_folder(folder)


def flush_names(folder: Path) -> None:
    """Puts all names in a folder, and in those below it, on the disk; a link leads nowhere."""
    for base, _, _ in os.walk(folder, topdown=False):
        flush_folder(base)


def flush_tree(folder: Path) -> None:
    """Puts all that is in a folder on the disk, and then its own name."""
    for base, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(os.path.join(base, name))
        flush_folder(base)
    flush_folders_of([folder])


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it that are missing, each so that it stays."""
    folder, new = os.fspath(folder), []
    while not os.path.isdir(folder or "."):
        new.append(folder)
        folder = os.path.dirname(folder)
    for folder in reversed(new):
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not os.path.isdir(folder):  # else another made it in this moment
                raise
        flush_folders_of([folder])


class Flushed(io.BufferedWriter):
    """A new file for writing that is on the disk when it is closed; one that is a symbolic link is refused."""

    def __init__(self, path: str):
        self._path = path
        super().__init__(io.FileIO(path, "wb", opener=opener))

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


@contextlib.contextmanager
def replacing(path: Path, attempt: Path) -> Iterator[str]:
    """Yields `attempt`, a name beside `path`: the file that is flushed there takes that name when the block ends well.

    What is left of one that failed is removed.
    """
    attempt = os.fspath(attempt)
    try:
        yield attempt
        os.replace(attempt, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(attempt)
        raise
    flush_folders_of([path])


def write(path: Path, data: bytes, attempt: Path | None = None) -> None:
    """Writes a file whole or not at all; `attempt` is the name beside it that it has until then."""
    with replacing(path, attempt or f"{os.fspath(path)}.tmp") as name, Flushed(name) as file:
        file.write(data)


def appended(path: Path) -> TextIO:
    """Opens a file for more lines; one that is new stays."""
    os.close(opener(os.fspath(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC))
    flush_folders_of([path])
    return open(path, "a", opener=opener)


def opener(path: str, flags: int) -> int:
    """For `open`: refuses a link."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise link_error(path) if error.errno == errno.ELOOP else error from error


def link_error(path: str) -> OSError:
    """What is said of a symbolic link in the place of a file or folder that is to be written."""
    return OSError(errno.ELOOP, f"{path} is a symbolic link, which is not followed for writing: remove it", path)

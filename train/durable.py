"""Files of a run that outlive a power cut, and that are never written through a symbolic link."""

import errno
import os
import pathlib
from typing import TextIO

# What says that a file system has nothing to flush for a folder: a disk that fails says otherwise.
_NO_SUCH_THING = (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.EISDIR)


def opener(path: str, flags: int) -> int:
    """For `open`: refuses a link, which in a folder that others write may lead to any file of ours."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        why = f"{path} is a symbolic link, which is not followed for writing: remove it"
        raise OSError(errno.ELOOP, why, path) from error


def appended(path: pathlib.Path) -> TextIO:
    """Opens a file for more lines."""
    return open(path, "a", opener=opener)


def write(path: pathlib.Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb", opener=opener) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    flush(path.parent)


def flush(path: pathlib.Path) -> None:
    """Puts a file, or the names in a folder, on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if not path.is_dir() or error.errno not in _NO_SUCH_THING:
            raise
    finally:
        os.close(file)


def flush_tree(folder: pathlib.Path) -> None:
    """Puts all that is in a folder on the disk, and then its own name."""
    for base, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(pathlib.Path(base, name))
        flush(pathlib.Path(base))
    flush(folder.parent)

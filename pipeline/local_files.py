"""Files on this machine, or on what is mounted there: one gets its name when it is whole, by a rename.

What has its name outlives a power cut: the bytes are flushed before the rename, and the folder after it.
"""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from mbt.pipeline import disk
from mbt.schemas import durable, regular

PART = ".part"  # ends the name of a file that is being written


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return os.path.isfile(path)


def size(path: str) -> int | None:
    """A file's size in bytes; None where there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def read(path: str) -> bytes:
    """A whole file.

    Raises:
      FileNotFoundError: there is none.
      NotAFileError: there is a pipe, a device or a folder.
    """
    return regular.read(path)


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading.

    Raises:
      FileNotFoundError: there is none.
      NotAFileError: there is a pipe, a device or a folder.
    """
    return regular.open_file(path)


def download(path: str, local_path: str) -> None:
    """Copies a file.

    Raises:
      FileNotFoundError: there is none.
    """
    shutil.copyfile(path, local_path)


def create(path: str) -> BinaryIO:
    """Opens a new file for writing, which is there at once, and on the disk when it is closed; makes its folder."""
    durable.make_folder(os.path.dirname(path))
    return durable.Flushed(path)


def write(path: str, data: bytes) -> None:
    """Writes a whole file, so that no reader ever sees a part of it."""
    durable.make_folder(os.path.dirname(path))
    durable.write(path, data, _attempt(path))


def upload(local_path: str, path: str) -> None:
    """Moves a file, also from another file system, so that no reader ever sees a part of it.

    Raises:
      FileNotFoundError: there is no such file.
    """
    durable.make_folder(os.path.dirname(path))
    durable.flush(local_path)
    try:
        os.replace(local_path, path)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another file system, from which no file can be renamed
            raise
        _copy(local_path, path)
        os.unlink(local_path)
        return
    durable.flush_folders_of([path])


def _copy(local_path: str, path: str) -> None:
    """A file from another file system."""
    with durable.replacing(path, _attempt(path)) as attempt:
        with disk.naming(attempt):
            shutil.copyfile(local_path, attempt)
        disk.check_size(attempt, os.path.getsize(local_path))
        durable.flush(attempt)


def move(path: str, new_path: str) -> None:
    """Gives a file another name on the same file system.

    Raises:
      FileNotFoundError: there is no such file.
    """
    durable.make_folder(os.path.dirname(new_path))
    durable.flush(path)  # nothing is left to write of what `create` made
    os.replace(path, new_path)
    durable.flush_folders_of([new_path])


def _attempt(final: str) -> str:
    """A name beside `final`, for a file that is to get that name."""
    return f"{final}.{uuid.uuid4().hex}{PART}"


def delete(path: str) -> None:
    """Deletes a file, if it is there."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)


def delete_folder(folder: str) -> None:
    """Deletes a folder and all that is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    durable.flush_folders_of([folder.rstrip("/")])


def sizes(folder: str) -> Iterator[tuple[str, int]]:
    """Names and sizes in bytes of the files directly in a folder, without those that are half written."""
    for entry in _entries(folder):
        if entry.is_file() and not entry.name.endswith(PART):
            yield entry.name, entry.stat().st_size


def folders(folder: str) -> Iterator[str]:
    """Names of the folders in a folder."""
    return (entry.name for entry in _entries(folder) if entry.is_dir())


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def files(folder: str) -> Iterator[tuple[str, int, float]]:
    """All files below a folder: path from there, size in bytes, and when it was changed, in seconds since 1970."""
    for base, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                path = os.path.join(base, name)
                status = os.stat(path)
                if stat.S_ISREG(status.st_mode):
                    yield os.path.relpath(path, folder), status.st_size, status.st_mtime

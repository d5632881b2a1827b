"""Where a dataset lies: in a folder, or on Google Cloud Storage, as gs://BUCKET/FOLDER. Paths are strings.

What goes wrong is an `OSError` with a `strerror`, wherever that is; what is not there, a `FileNotFoundError`.
"""

import contextlib
import functools
import os
import pathlib
import posixpath
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import IO

import numpy as np

from mbt.schemas import regular

_SCHEME = "gs://"
# Clips that are read at a time. From a disk it is processors that limit; an object store is waited for.
_READERS, _REMOTE_READERS = 8, 64
_copying = threading.Lock()

Range = tuple[int, int]  # offset and length, bytes


class UnreadableError(Exception):
    """A disk does not give some bytes of a file that is there."""


def is_remote(path: str) -> bool:
    """Whether a path is that of an object."""
    return path.startswith(_SCHEME)


def is_known(root: str) -> bool:
    """Whether there are datasets at such places."""
    scheme, found, place = root.partition("://")
    return not found or (scheme == "gs" and place.partition("/")[0] != "")


def readers(path: str) -> int:
    """How many clips to read at a time."""
    return _REMOTE_READERS if is_remote(path) else _READERS


def join(root: str, name: str) -> str:
    """Path of what lies below a root."""
    return posixpath.join(root, name)


def read(path: str) -> bytes:
    """A whole file."""
    return _gcs().read(path) if is_remote(path) else regular.read(path)


def sizes(root: str, folder: str) -> dict[str, int]:
    """Bytes of each file below a folder, by its name as seen from the root, sorted; none where there is no folder."""
    found = _gcs().sizes(join(root, folder)) if is_remote(root) else dict(_local_sizes(os.path.join(root, folder)))
    return {join(folder, name): found[name] for name in sorted(found)}


def _local_sizes(folder: str) -> Iterator[tuple[str, int]]:
    for base, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = pathlib.Path(base, name)
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def mapped(path: str) -> np.ndarray:
    """A whole file as (bytes,) uint8, mapped from a disk, to which an object is copied first.

    Raises:
      ValueError: it is empty.
    """
    if not is_remote(path):
        with regular.open_file(path) as file:
            return np.memmap(file, np.uint8, "r")
    offset, length = _copied(path)
    if not length:
        raise ValueError("it is empty")
    with _copying:  # numpy moves the file's position
        return np.memmap(_copies(), np.uint8, "r", offset, (length,))


@functools.cache  # a dataset's files never change under their names
def _copied(path: str) -> Range:
    """Where an object lies among the copies; it is fetched once for each process, however often it is mapped."""
    with tempfile.TemporaryFile() as file:
        _gcs().download(path, file)
        file.seek(0)
        with _copying:
            offset = _copies().seek(0, os.SEEK_END)
            shutil.copyfileobj(file, _copies())
            _copies().flush()
            return offset, _copies().tell() - offset


@functools.cache
def _copies() -> IO[bytes]:
    """One file for all: it has no name, so nothing is left over and no two processes meet."""
    return tempfile.TemporaryFile()


def read_ranges(path: str, ranges: Sequence[Range]) -> list[bytes]:
    """Parts of a file; shorter where the file ends before.

    Raises:
      FileNotFoundError: there is no such file.
      UnreadableError: a disk does not give these bytes, though it may give others.
      OSError: the file cannot be opened; or the object store refuses, or has not answered for minutes.
    """
    if is_remote(path):
        return _gcs().read_ranges(path, ranges)
    file = regular.open_descriptor(path)
    try:
        return [os.pread(file, length, offset) for offset, length in ranges]
    except OSError as error:
        raise UnreadableError(error.strerror) from error
    finally:
        os.close(file)


def _gcs() -> ModuleType:
    from mbt.train import gcs  # libraries of the network, only where they are needed

    return gcs

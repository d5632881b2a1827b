"""Where a dataset lies: in a folder, or on Google Cloud Storage, as gs://BUCKET/FOLDER. Paths are strings.

What goes wrong is an `OSError` with a `strerror`, wherever that is; what is not there, a `FileNotFoundError`.
"""

import functools
import os
import pathlib
import posixpath
import tempfile
from collections.abc import Sequence
from types import ModuleType

import numpy as np

_SCHEME = "gs://"
# Clips that are read at a time. From a disk it is processors that limit; an object store is waited for.
_READERS, _REMOTE_READERS = 8, 64

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
    return _gcs().read(path) if is_remote(path) else pathlib.Path(path).read_bytes()


def sizes(root: str, folder: str) -> dict[str, int]:
    """Bytes of each file below a folder, by its name as seen from the root, sorted; none where there is no folder."""
    if is_remote(root):
        found = _gcs().sizes(join(root, folder))
    else:
        files = [path for path in pathlib.Path(root, folder).rglob("*") if path.is_file()]
        found = {path.relative_to(pathlib.Path(root, folder)).as_posix(): path.stat().st_size for path in files}
    return {join(folder, name): found[name] for name in sorted(found)}


def mapped(path: str) -> np.ndarray:
    """A whole file as (bytes,) uint8, mapped from a disk, to which an object is copied first.

    Raises:
      ValueError: it is empty.
    """
    return _copied(path) if is_remote(path) else np.memmap(path, np.uint8, "r")


@functools.cache  # a dataset's files never change under their names
def _copied(path: str) -> np.ndarray:
    """An object, once for each process; the copy has no name, so nothing is left over and no two processes meet."""
    with tempfile.TemporaryFile() as file:
        _gcs().download(path, file)
        return np.memmap(file, np.uint8, "r")


def read_ranges(path: str, ranges: Sequence[Range]) -> list[bytes]:
    """Parts of a file; shorter where the file ends before.

    Raises:
      FileNotFoundError: there is no such file.
      UnreadableError: a disk does not give these bytes, though it may give others.
      OSError: the file cannot be opened; or the object store refuses, or has not answered for minutes.
    """
    if is_remote(path):
        return _gcs().read_ranges(path, ranges)
    file = os.open(path, os.O_RDONLY)
    try:
        return [os.pread(file, length, offset) for offset, length in ranges]
    except OSError as error:
        raise UnreadableError(error.strerror) from error
    finally:
        os.close(file)


def _gcs() -> ModuleType:
    from mbt.train import gcs  # libraries of the network, only where they are needed

    return gcs

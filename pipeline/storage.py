"""Files under ROOT, local or on any object store that Beam's FileSystems knows."""

import contextlib
import os
import shutil
import uuid
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

_MIME = "application/octet-stream"


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system."""
    return FileSystems.get_scheme(path) in (None, "file")


def join(root: str, *parts: str) -> str:
    """A path below `root`."""
    return FileSystems.join(root, *parts)


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return FileSystems.exists(path)


def read(path: str) -> bytes:
    """A whole file.

    Raises:
      FileNotFoundError: there is none.
    """
    if not exists(path):
        raise FileNotFoundError(path)
    with FileSystems.open(path, _MIME, CompressionTypes.UNCOMPRESSED) as file:
        return file.read()


def create(path: str) -> BinaryIO:
    """Opens a new file for writing; its folder is made where folders exist."""
    if is_local(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    return FileSystems.create(path, _MIME, CompressionTypes.UNCOMPRESSED)


def publish(attempt: str, final: str) -> None:
    """Gives a complete, verified file its final name; who reads that name reads all of it."""
    if is_local(final):
        os.makedirs(os.path.dirname(final), exist_ok=True)
        os.replace(attempt, final)
    else:
        FileSystems.copy([attempt], [final])
        delete(attempt)


def write(path: str, data: bytes) -> None:
    """Writes a whole file, so that no reader ever sees a part of it."""
    if not is_local(path):
        with create(path) as file:  # an object appears when it is complete
            file.write(data)
        return
    attempt = f"{path}.{uuid.uuid4().hex}.part"
    try:
        with create(attempt) as file:
            file.write(data)
        os.replace(attempt, path)
    except BaseException:
        delete(attempt)
        raise


def sizes(folder: str) -> dict[str, int]:
    """The files directly in a folder: name to size in bytes; none where there is no such folder."""
    try:
        (match,) = FileSystems.match([join(folder, "*")])
    except BeamIOError:
        return {}
    return {os.path.basename(found.path): found.size_in_bytes for found in match.metadata_list}


def folders(folder: str) -> list[str]:
    """Names of the folders in a folder, sorted."""
    if is_local(folder):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()) if os.path.isdir(folder) else []
    (match,) = FileSystems.match([join(folder, "**")])
    prefix = folder.rstrip("/") + "/"
    below = (found.path.removeprefix(prefix) for found in match.metadata_list)
    return sorted({path.split("/")[0] for path in below if "/" in path})


def delete_folder(path: str) -> None:
    """Deletes a folder and all that is in it."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        delete(path.rstrip("/") + "/")


def delete(*paths: str) -> None:
    """Deletes files; those that are not there are nobody's concern."""
    for path in paths:
        with contextlib.suppress(BeamIOError, FileNotFoundError):
            FileSystems.delete([path])


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading, as it is, not decompressed."""
    return FileSystems.open(path, _MIME, CompressionTypes.UNCOMPRESSED)

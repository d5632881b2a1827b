"""Files under ROOT: on this machine, on gs://, or on any other store that Beam's FileSystems knows."""

import contextlib
import dataclasses
import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from mbt.pipeline import gcs

PART = ".part"  # ends the name of a local file that is being written
_MIME = "application/octet-stream"


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system."""
    return FileSystems.get_scheme(path) is None


def is_gcs(path: str) -> bool:
    """Whether a path is on Google Cloud Storage."""
    return FileSystems.get_scheme(path) == gcs.SCHEME


def join(root: str, *parts: str) -> str:
    """A path below `root`."""
    return FileSystems.join(root, *parts)


def exists(path: str) -> bool:
    """Whether there is such a file."""
    if is_local(path):
        return os.path.isfile(path)
    return gcs.exists(path) if is_gcs(path) else FileSystems.exists(path)


def read(path: str) -> bytes:
    """A whole file.

    Raises:
      FileNotFoundError: there is none.
    """
    if is_gcs(path):
        return gcs.read(path)
    with open_file(path) as file:
        return file.read()


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading, as it is, not decompressed. One on a store is read a few MiB at a time.

    Raises:
      FileNotFoundError: there is none.
    """
    if is_local(path):
        return open(path, "rb")
    if is_gcs(path):
        return gcs.open_file(path)
    if not exists(path):
        raise FileNotFoundError(path)
    return FileSystems.open(path, _MIME, CompressionTypes.UNCOMPRESSED)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """A path on this machine for a file: its own, or that of a copy that goes when the block ends.

    Raises:
      FileNotFoundError: there is no such file.
    """
    if is_local(path):
        if not exists(path):
            raise FileNotFoundError(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mbt-media-") as folder:
        copy = os.path.join(folder, "media" + os.path.splitext(path)[1])
        _download(path, copy)
        yield copy


def _download(path: str, local_path: str) -> None:
    if is_gcs(path):
        gcs.download(path, local_path)
        return
    with open_file(path) as source, open(local_path, "wb") as sink:
        shutil.copyfileobj(source, sink)


def create(path: str) -> BinaryIO:
    """Opens a new file for writing; its folder is made where folders exist.

    On a store the file appears when it is closed; on this machine at once, so write under another name and `publish`.
    """
    if is_local(path):
        _make_folder(path)
        return open(path, "wb")
    return gcs.create(path) if is_gcs(path) else FileSystems.create(path, _MIME, CompressionTypes.UNCOMPRESSED)


def publish(attempt: str, final: str) -> None:
    """Gives a complete, verified file its final name; who reads that name reads all of it.

    Raises:
      FileNotFoundError: there is no such file.
    """
    if is_local(final):
        _make_folder(final)
        os.replace(attempt, final)
    elif is_gcs(final):
        gcs.move(attempt, final)
    else:
        FileSystems.copy([attempt], [final])
        delete(attempt)


def upload(local_path: str, final: str) -> None:
    """Moves a file of this machine to its final name, where no reader ever sees a part of it.

    Raises:
      FileNotFoundError: there is no such file.
    """
    if is_local(final):
        _make_folder(final)
        _move(local_path, final)
        return
    if is_gcs(final):
        gcs.upload(local_path, final)
    else:
        with open(local_path, "rb") as source, create(final) as sink:
            shutil.copyfileobj(source, sink)
    os.unlink(local_path)


def _move(local_path: str, final: str) -> None:
    try:
        os.replace(local_path, final)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another file system, from which no file can be renamed
            raise
        with _attempt(final) as attempt:
            shutil.copyfile(local_path, attempt)
        os.unlink(local_path)


def write(path: str, data: bytes) -> None:
    """Writes a whole file, so that no reader ever sees a part of it."""
    if is_gcs(path):
        gcs.write(path, data)
    elif is_local(path):
        _make_folder(path)
        with _attempt(path) as attempt, open(attempt, "wb") as file:
            file.write(data)
    else:
        with create(path) as file:  # an object appears when it is complete
            file.write(data)


@contextlib.contextmanager
def _attempt(final: str) -> Iterator[str]:
    """A name beside `final`, for a file that gets that name when the block ends well."""
    attempt = f"{final}.{uuid.uuid4().hex}{PART}"
    try:
        yield attempt
        os.replace(attempt, final)
    except BaseException:
        delete(attempt)
        raise


def _make_folder(path: str) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)


def sizes(folder: str) -> dict[str, int]:
    """The files directly in a folder: name to size in bytes; none where there is no such folder.

    Those that a killed process left half written are not listed.
    """
    if is_local(folder):
        files = (entry for entry in _entries(folder) if entry.is_file() and not entry.name.endswith(PART))
        return {entry.name: entry.stat().st_size for entry in files}
    return dict(gcs.sizes(folder)) if is_gcs(folder) else _matches(folder, "*")


def folders(folder: str) -> list[str]:
    """Names of the folders in a folder, sorted; on stores other than gs:// all that is below it is listed for that."""
    if is_local(folder):
        return sorted(entry.name for entry in _entries(folder) if entry.is_dir())
    if is_gcs(folder):
        return sorted(gcs.folders(folder))
    return sorted({name.split("/")[0] for name in _matches(folder, "**") if "/" in name})


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _matches(folder: str, pattern: str) -> dict[str, int]:
    try:
        (match,) = FileSystems.match([join(folder, pattern)])
    except BeamIOError:
        return {}
    prefix = folder.rstrip("/") + "/"
    return {found.path.removeprefix(prefix): found.size_in_bytes for found in match.metadata_list}


def delete_folder(path: str) -> None:
    """Deletes a folder and all that is in it."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
    elif is_gcs(path):
        gcs.delete_folder(path)
    else:
        delete(path.rstrip("/") + "/")


def delete(*paths: str) -> None:
    """Deletes files; those that are not there are nobody's concern."""
    for path in paths:
        if is_local(path):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
        elif is_gcs(path):
            gcs.delete(path)
        else:
            with contextlib.suppress(BeamIOError, FileNotFoundError):
                FileSystems.delete([path])


@dataclasses.dataclass(frozen=True)
class File:
    """A file below a folder: its path from there, its size, and when it was last changed, in seconds since 1970."""

    path: str
    bytes: int
    modified: float


def files(folder: str) -> Iterator[File]:
    """All files below a folder, also those that are half written; none where there is no such folder."""
    if is_local(folder):
        for base, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(os.path.join(base, name))
                    path = os.path.relpath(os.path.join(base, name), folder)
                    if stat.S_ISREG(status.st_mode):
                        yield File(path, status.st_size, status.st_mtime)
        return
    if is_gcs(folder):
        yield from (File(*found) for found in gcs.files(folder))
        return
    (match,) = FileSystems.match([join(folder, "**")])
    prefix = folder.rstrip("/") + "/"
    for found in match.metadata_list:
        yield File(found.path.removeprefix(prefix), found.size_in_bytes, found.last_updated_in_seconds)

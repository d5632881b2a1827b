"""Files by their paths: on this machine, on gs:// or on s3://, each by a module of its own.

A file that appears, whatever the store, is whole: nobody ever reads a part of one under its final name. What a call has
written, published or deleted when it returns stays so, also after a power cut.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol, cast

from mbt.pipeline import leftovers, local_files
from mbt.schemas import durable

PART = local_files.PART
_AT_ONCE = 16  # requests to a store
_WAITING = 1024  # requests that wait for their turn
# The stores besides this machine: scheme to what a message calls it. Their modules are imported when they are needed.
STORES = {"gs": "Google Cloud Storage", "s3": "S3"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MODULES = {"gs": "mbt.pipeline.gcs", "s3": "mbt.pipeline.s3"}


class UnknownStoreError(ValueError):
    """There is no such kind of store; the message names those that there are."""


class Store(Protocol):
    """What a kind of store does with paths; the functions of this module say what each is for."""

    def exists(self, path: str, /) -> bool: ...  # noqa: D102
    def size(self, path: str, /) -> int | None: ...  # noqa: D102
    def read(self, path: str, /) -> bytes: ...  # noqa: D102
    def open_file(self, path: str, /) -> BinaryIO: ...  # noqa: D102
    def download(self, path: str, local_path: str, /) -> None: ...  # noqa: D102
    def create(self, path: str, /) -> BinaryIO: ...  # noqa: D102
    def write(self, path: str, data: bytes, /) -> None: ...  # noqa: D102
    def upload(self, local_path: str, path: str, /) -> None: ...  # noqa: D102
    def move(self, path: str, new_path: str, /) -> None: ...  # noqa: D102
    def delete(self, path: str, /) -> None: ...  # noqa: D102
    def delete_folder(self, folder: str, /) -> None: ...  # noqa: D102
    def sizes(self, folder: str, /) -> Iterator[tuple[str, int]]: ...  # noqa: D102
    def folders(self, folder: str, /) -> Iterator[str]: ...  # noqa: D102
    def files(self, folder: str, /) -> Iterator[tuple[str, int, float]]: ...  # noqa: D102


class ConditionalStore(Store, Protocol):
    """A store that a lock can be made of: an object written only if it is not there, deleted only if it is the same.

    Nothing else may rest on that, for not all that speak S3's protocol keep it.
    """

    def create_new(self, path: str, data: bytes, /) -> Any: ...  # noqa: D102
    def read_version(self, path: str, /) -> tuple[bytes, Any] | None: ...  # noqa: D102
    def delete_version(self, path: str, version: Any, /) -> None: ...  # noqa: D102


def scheme(path: str) -> str | None:
    """What stands before `://` in a path, in small letters; None of a path on this machine."""
    match = _SCHEME.match(path)
    return match and match[1].lower()


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system."""
    return scheme(path) is None


def check(path: str) -> None:
    """Refuses a path on a kind of store that there is none of.

    Raises:
      UnknownStoreError: it is on one.
    """
    kind = scheme(path)
    if kind is not None and kind not in STORES:
        raise UnknownStoreError(f"{path} is neither a path of this machine nor on gs:// or s3://")
    if kind is not None and not path.partition("://")[2].strip("/"):
        raise UnknownStoreError(f"{path} names no bucket")


def _store(path: str) -> Store:
    check(path)
    kind = scheme(path)
    if kind == "gs":
        from mbt.pipeline import gcs

        return gcs
    if kind == "s3":
        from mbt.pipeline import s3

        return s3
    return local_files


def conditional(path: str) -> ConditionalStore:
    """The store of a path that is not on this machine, for a lock."""
    return cast(ConditionalStore, _store(path))


def errors() -> tuple[type[Exception], ...]:
    """What may come of any call besides `OSError`, of the stores that are in use: for an `except` clause."""
    return tuple(kind for name in _MODULES.values() if name in sys.modules for kind in sys.modules[name].ERRORS)


def said(error: BaseException) -> str:
    """A store's error in one line, with the name of the store."""
    for kind, module in _MODULES.items():
        if module in sys.modules and isinstance(error, sys.modules[module].ERRORS):
            return f"{STORES[kind]}: {' '.join(str(error).split())}"
    return str(error)


def join(root: str, *parts: str) -> str:
    """A path below `root`."""
    if is_local(root):
        return os.path.join(root, *parts)
    return "/".join([root.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return _store(path).exists(path)


def size(path: str) -> int | None:
    """A file's size in bytes; None where there is none."""
    return _store(path).size(path)


def read(path: str) -> bytes:
    """A whole file.

    Raises:
      FileNotFoundError: there is none.
    """
    return _store(path).read(path)


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading, as it is, not decompressed. One on a store is read a few MiB at a time.

    Raises:
      FileNotFoundError: there is none.
    """
    return _store(path).open_file(path)


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
    with tempfile.TemporaryDirectory(prefix=leftovers.prefix("media")) as folder:
        copy = os.path.join(folder, "media" + os.path.splitext(path)[1])
        _store(path).download(path, copy)
        yield copy


def create(path: str) -> BinaryIO:
    """Opens a new file for writing; its folder is made where folders exist.

    On a store the file appears when it is closed, and never when the `with` block raises; on this machine at once. So
    write under another name, look at what came of it, and `publish`.
    """
    return _store(path).create(path)


def publish(attempt: str, final: str) -> None:
    """Gives a complete, verified file its final name; who reads that name reads all of it.

    Raises:
      FileNotFoundError: there is no such file.
    """
    _store(final).move(attempt, final)


def upload(local_path: str, final: str) -> None:
    """Moves a file of this machine to its final name, where no reader ever sees a part of it.

    Raises:
      FileNotFoundError: there is no such file.
    """
    _store(final).upload(local_path, final)


def write(path: str, data: bytes) -> None:
    """Writes a whole file, so that no reader ever sees a part of it."""
    _store(path).write(path, data)


def sizes(folder: str) -> dict[str, int]:
    """The files directly in a folder: name to size in bytes; none where there is no such folder.

    Those that a killed process left half written are not listed.
    """
    return dict(_store(folder).sizes(folder))


def folders(folder: str) -> list[str]:
    """Names of the folders in a folder, sorted."""
    return sorted(_store(folder).folders(folder))


def delete_folder(path: str) -> None:
    """Deletes a folder and all that is in it, uploads that were never finished too."""
    _store(path).delete_folder(path)


def delete(*paths: str) -> None:
    """Deletes files, in no order; those that are not there are nobody's concern."""

    def one(path: str) -> None:
        _store(path).delete(path)

    local = [path for path in paths if is_local(path)]
    for path in local:
        one(path)
    durable.flush_folders_of(local)
    others = [path for path in paths if not is_local(path)]
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        for first in range(0, len(others), _WAITING):  # there may be millions
            list(pool.map(one, others[first : first + _WAITING]))


def flush_folder(folder: str) -> None:
    """Makes sure that the files that are in a folder stay in it; those of a process that was killed may not."""
    if is_local(folder):
        durable.flush_folder(folder)


def flush_names(folder: str) -> None:
    """Makes sure of the same for all that is below a folder."""
    if is_local(folder):
        durable.flush_names(folder)


@dataclasses.dataclass(frozen=True)
class File:
    """A file below a folder: its path from there, its size, and when it was last changed, in seconds since 1970."""

    path: str
    bytes: int
    modified: float


def files(folder: str) -> Iterator[File]:
    """All files below a folder, also those that are half written; none where there is no such folder."""
    return (File(*found) for found in _store(folder).files(folder))


def unfinished_uploads(folder: str) -> Iterator[File]:
    """What killed processes left below a folder of s3:// that is no file, but kept there, and paid for.

    On gs:// such a thing cannot be listed, and goes by itself after a week; on this machine it is a file.
    """
    if scheme(folder) == "s3":
        from mbt.pipeline import s3

        yield from (File(*found) for found in s3.unfinished_uploads(folder))


def abort_uploads(folder: str, before: float = float("inf")) -> None:
    """Deletes `unfinished_uploads` that were begun before a time, in seconds since 1970."""
    if scheme(folder) == "s3":
        from mbt.pipeline import s3

        s3.abort_uploads(folder, before)


def keeps_deleted(root: str) -> bool:
    """Whether the bucket of a path may keep objects that are deleted."""
    kind = scheme(root)
    if kind == "s3":
        from mbt.pipeline import s3

        return s3.keeps_deleted(root) is not False
    return kind is not None  # gs:// keeps them for a week, by default

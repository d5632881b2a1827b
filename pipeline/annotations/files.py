"""The files that a user names, `FILE` or `SPLIT=FILE`, refused early where they are no text tables.

A file is on this machine, on gs:// or on s3://; a folder is on this machine.
"""

import dataclasses
import os
import re
from collections.abc import Sequence

from mbt.pipeline import storage
from mbt.pipeline.annotations import lines
from mbt.pipeline.annotations.rows import AnnotationsError, BadRowError

SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEAD_BYTES = 4096
_SIGNATURES = (
    (b"\xff\xfe", "is UTF-16, a spreadsheet's 'Unicode text': save it as CSV in UTF-8"),
    (b"\xfe\xff", "is UTF-16, a spreadsheet's 'Unicode text': save it as CSV in UTF-8"),
    (b"\x1f\x8b", "is compressed: unpack it with gunzip first"),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet's own format: give the CSV itself"),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet's own format: give the CSV itself"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file: run git lfs pull where it comes from"),
    (b"<", "is a web page, not CSV; was it a login or an error page that was saved? Download the file again"),
    (b"{", "is JSON, not CSV: give the CSV file of the dataset"),
    (b"[", "is JSON, not CSV: give the CSV file of the dataset"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedFile:
    """One file, or folder, that the user named.

    Attributes:
      path: of it.
      name: what rows call it: its name, or its path where another one has the same name.
      split: that was given with it, or "".
    """

    path: str
    name: str
    split: str

    @property
    def stem(self) -> str:
        """The name without folder and extension."""
        return os.path.splitext(os.path.basename(os.path.normpath(self.path)))[0]


def named(arguments: Sequence[str], *, folders: bool = False) -> tuple[NamedFile, ...]:
    """What the user named, each one looked into.

    Args:
      arguments: `FILE` or `SPLIT=FILE`.
      folders: whether a folder will do, too.

    Raises:
      AnnotationsError: a file is missing, unreadable, empty, named twice, or not text.
    """
    pairs = [split_and_path(argument) for argument in arguments]
    paths = [path for _, path in pairs]
    for path in paths:
        if paths.count(path) > 1:
            raise AnnotationsError(f"{path} is named twice")
        if not (folders and os.path.isdir(path)):
            _check_is_text(path)
    names = [os.path.basename(path) for path in paths]
    return tuple(
        NamedFile(path=path, name=path if names.count(name) > 1 else name, split=split)
        for (split, path), name in zip(pairs, names, strict=True)
    )


def split_and_path(argument: str) -> tuple[str, str]:
    """What stands before the `=` in `SPLIT=FILE`, or "", and the path."""
    split, equals, path = argument.partition("=")
    if equals and SPLIT.fullmatch(split) and not os.path.exists(argument):
        return split, path
    return "", argument


def _check_is_text(path: str) -> None:
    try:
        if os.path.isdir(path):
            raise AnnotationsError(f"{path} is a folder; name the file")
        if os.path.exists(path) and not os.path.isfile(path):
            raise AnnotationsError(f"{path} is not a file")
        with storage.open_file(path) as file:
            head = file.read(_HEAD_BYTES)
    except storage.errors() as error:  # first, for some of them are OSErrors too
        raise AnnotationsError(f"{path}: {storage.said(error)}") from error
    except storage.UnknownStoreError as error:
        raise AnnotationsError(str(error)) from error
    except OSError as error:
        raise AnnotationsError(f"{path}: {error.strerror or 'No such file or directory'}") from error
    except AnnotationsError:
        raise
    except ValueError as error:  # a NUL in the name
        raise AnnotationsError(f"{path!a}: {error}") from error
    _check_head(path, head)


def _check_head(path: str, head: bytes) -> None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise AnnotationsError(f"{path} is empty")
    for signature, meaning in _SIGNATURES:
        if start.startswith(signature):
            raise AnnotationsError(f"{path}, line 1: the file {meaning}")
    if head.count(b"\0") > len(head) // 4:
        raise AnnotationsError(f"{path}, line 1: the file holds binary data, or UTF-16: save it as CSV in UTF-8")
    if b"\r" in head.rstrip() and b"\n" not in head:
        raise AnnotationsError(f"{path}, line 1: lines end in carriage returns only: save it with Unix line ends")


def first_cells(file: NamedFile) -> list[str]:
    """The cells of the first line, which says what kind of file it is."""
    _, line = next(lines.lines(file.path))
    try:
        return lines.cells(line)
    except BadRowError as error:
        raise AnnotationsError(f"{file.path}, line 1: {error.detail}") from error


def split_by_name(file: NamedFile, words: Sequence[str]) -> str:
    """The split that was given with the file, or the first of these words in its name, or ""."""
    if file.split:
        return file.split
    return next((word for word in words if re.search(rf"(?<![a-z]){word}(?![a-z])", file.stem.lower())), "")


def no_split(file: NamedFile, example: str) -> AnnotationsError:
    """The refusal of a file whose split is not known."""
    name = os.path.basename(file.path)
    return AnnotationsError(f"{file.path}: its name does not tell the split; say --annotations={example}={name}")

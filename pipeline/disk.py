"""What a disk refuses: full, over a quota, failing, read-only; said in one line, with the folder and what to do."""

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator

_FULL = "free some space there (or inodes, where `df -i` says that they ran out)"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "free some of your quota there",
    errno.EIO: "the disk or its cable fails, which `dmesg` may tell more of",
    errno.EROFS: "mount it for writing",
}
_ROOM_BYTES = 1 << 16
# The line of a traceback that says which exception it is, and how it begins where the system's error has a number.
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception)\b.*", re.MULTILINE)
_NUMBERED = re.compile(r"(\w+): \[Errno (\d+)\] ([^:\n\[]+)(?:: (['\"])(.*?)\4)?")


def is_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written to a disk: no other file would fare better."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def is_trouble(error: BaseException) -> bool:
    """Whether an error is a disk's: it says nothing of what was to be written."""
    return isinstance(error, OSError) and error.errno in _ADVICE


def said(error: OSError, place: str = "") -> str:
    """A disk's error in one line; `place` is where, if the error does not say. Of another error, its own words."""
    if not is_trouble(error):
        return str(error)
    folder = error.filename if isinstance(error.filename, str) else place
    while folder and not os.path.isdir(folder):  # a file, or a temporary folder that has gone with its attempt
        folder = os.path.dirname(folder)
    return f"{folder or 'a disk'}: {error.strerror}: {_ADVICE[error.errno or 0]}"


def in_text(text: str) -> OSError | None:
    """The system's error that a traceback ends with, which an engine passes on as text; None of another end."""
    lines = _EXCEPTION.findall(text)
    if not lines or not (match := _NUMBERED.match(lines[-1])):
        return None
    return OSError(int(match[2]), match[3].strip(), *([match[5]] if match[5] else []))


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Gives the errors of the block the path that they are about: those of writing have none, those of copying two."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or error.filename2 is not None):
            raise OSError(error.errno, error.strerror, path) from error
        raise


def write_all(file, data: bytes) -> None:
    """Writes all of it to an unbuffered file, of which one `write` may take a part: what is left meets the error."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def check_size(path: str, size: int) -> None:
    """Raises OSError where a file that was written has another size."""
    found = os.path.getsize(path)
    if found != size:
        raise OSError(errno.EIO, f"{found} of {size} bytes are there", path)


def check_room(folder: str) -> None:
    """Raises OSError where not even a small file can be written: then that is why another program failed there."""
    with naming(folder), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        write_all(file, bytes(_ROOM_BYTES))
        os.fsync(file.fileno())

"""A lock file of a process, where the file system has no locks: who stands in it, and its removal from a dead one."""

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator

from mbt.schemas.holder import Holder

NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
GRAVE = ".left"  # ends the name that a lock has in the moment in which it is removed from its dead holder
WORKDIR_LOCK = "lock"  # of a training run, by the kernel
WORKDIR_LOCK_BY_NAME = "lock.held"  # of one, where the file system has no `flock`
_MOST_BYTES = 1 << 16


def content(file: int) -> Holder | None:
    """Who stands in an open file."""
    return Holder.from_json(os.pread(file, _MOST_BYTES, 0))


def read(path: str) -> Holder | None:
    """Who stands in the file; None where there is none, or that is not known."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return content(file) if stat.S_ISREG(os.fstat(file).st_mode) else None
    finally:
        os.close(file)


class TakenError(Exception):
    """Another has a lock, or may have it.

    Attributes:
      holder: who; None where that is not known.
    """

    def __init__(self, holder: Holder | None):
        super().__init__(f"held by {holder or 'an unknown process'}")
        self.holder = holder


@contextlib.contextmanager
def held_by_name(path: str) -> Iterator[None]:
    """Holds a lock for the block that is a file, there while it is held, for where the file system has no `flock`.

    A killed process leaves its file, which the next one on its machine removes.

    Raises:
      TakenError: another has it.
    """
    file = _created(path)
    try:
        os.write(file, Holder.this_process(by_kernel=False).to_json())
        yield
    finally:
        if is_at(file, path):
            os.unlink(path)
        os.close(file)


def _created(path: str) -> int:
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        other = read(path)
        if os.path.lexists(path) and (other is None or not other.is_dead()):
            raise TakenError(other)
        if other is not None:
            bury(path, other)


def bury(path: str, found: Holder | None) -> None:
    """Removes the file that a dead process left; of two that come at once, none removes what the other made."""
    grave = f"{path}.{uuid.uuid4().hex}{GRAVE}"
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return
    if read(grave) != found:  # somebody was faster, and has the lock
        with contextlib.suppress(FileExistsError):
            os.link(grave, path)
    os.unlink(grave)


def is_at(file: int, path: str) -> bool:
    """Whether an open file is the one at a path, and was not replaced."""
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except FileNotFoundError:
        return False

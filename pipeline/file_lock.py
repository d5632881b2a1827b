"""A lock that is a file of this machine, or of what is mounted there.

The kernel keeps it (`flock`), and frees it when its holder ends, however that comes about. A file system that has no
`flock`, as NFS and SMB may not, has the file alone: it is made only where there is none, and one that its holder left
behind is passed over where the holder was a process of this machine and is not any more. It says by itself which of
the two it is, so that machines that mount the file system differently understand each other.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat

from mbt.schemas import durable, lock_file
from mbt.schemas.holder import Holder

_TRIES = 1000  # to open a file in a folder that others make and remove
_BY_KERNEL = (
    "Wait for it, or choose another --output. Its lock goes when it ends; should a network file system keep that "
    "of a machine that is gone, add --take_over."
)
_BY_NAME = (
    "Wait for it, or choose another --output. The file system has no flock, so its lock is a file, which a killed "
    "process leaves; if it is dead, for only its own machine can tell, add --take_over."
)
_LOG = logging.getLogger(__name__)


class FileLock:
    """A lock by the path of its file."""

    def __init__(self, path: str):
        self._path = path
        self._file: int | None = None
        self._made_folder = False

    @property
    def advice(self) -> str:
        """What to do about one that another holds."""
        found = self.holder()
        return _BY_KERNEL if found is None or found.by_kernel else _BY_NAME

    def take(self) -> bool:
        """Takes it; False where another has it."""
        while True:
            file, is_new = self._opened()
            try:
                by_kernel = _locked(file, fcntl.LOCK_EX)
                if by_kernel is None:
                    return False
                if by_kernel and not lock_file.is_at(file, self._path):
                    continue  # its last holder has just removed the file
                if not is_new and _is_alive(file, by_kernel=by_kernel):
                    return False
                if by_kernel or is_new:
                    self._file = file
                    self._write(Holder.this_process(by_kernel=by_kernel))
                    return True
                lock_file.bury(self._path, lock_file.content(file))
            finally:
                if self._file is None:
                    os.close(file)

    def _write(self, holder: Holder) -> None:
        if not holder.by_kernel:
            _LOG.warning("%s: this file system has no flock, so a killed command may leave this lock", self._path)
        assert self._file is not None
        os.truncate(self._file, 0)
        os.write(self._file, holder.to_json())

    def _opened(self) -> tuple[int, bool]:
        """The file, and whether it is new."""
        for _ in range(_TRIES):  # its last holder may have made the folder, and may just have removed it
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                return self._open()
        return self._open()

    def _open(self) -> tuple[int, bool]:
        folder = os.path.dirname(self._path)
        self._made_folder = not os.path.isdir(folder)
        durable.make_folder(folder)
        with contextlib.suppress(FileExistsError):
            return _open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL), True
        return _open(self._path, os.O_RDWR | os.O_APPEND), False

    def is_held(self) -> bool:
        """Whether anybody has it."""
        try:
            file = _open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            by_kernel = _locked(file, fcntl.LOCK_SH)
            return by_kernel is None or _is_alive(file, by_kernel=by_kernel)
        finally:
            os.close(file)

    def holder(self) -> Holder | None:
        """Who has it, as far as that is known."""
        return lock_file.read(self._path)

    def remove(self) -> None:
        """Removes it, whoever holds it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def release(self) -> None:
        """Gives it back, if this object took it."""
        if self._file is None:
            return
        if lock_file.is_at(self._file, self._path):
            self.remove()
        self.forget()
        if self._made_folder:
            with contextlib.suppress(OSError):  # a command that was refused leaves nothing behind
                os.rmdir(os.path.dirname(self._path))

    def forget(self) -> None:
        """In a forked process: the lock is its parent's, and would outlive it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _open(path: str, flags: int) -> int:
    """Opens a plain file; in a folder that others write, a link may lead to any file of ours."""
    try:
        file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise durable.link_error(path) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{path} is no plain file: remove it", path)
    return file


def _locked(file: int, kind: int) -> bool | None:
    """Whether the kernel has locked a file; None where it has for another process, False where it cannot."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in lock_file.NO_FLOCK:
            raise
        return False
    return True


def _is_alive(file: int, *, by_kernel: bool) -> bool:
    """Whether a lock that the kernel has given us, or knows nothing of, is another's by what stands in its file."""
    found = lock_file.content(file)
    if by_kernel:
        return found is not None and not found.by_kernel and not found.is_dead()
    return found is None or not found.is_dead()

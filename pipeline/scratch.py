"""This process's temporary files: one folder of the temporary folder, which goes with the process, or with the next.

Beam, ffmpeg's inputs and copies of media leave files in TMPDIR when the process is killed, some of which hold frames.
So everything goes into a folder that the process keeps locked, and each process removes those that nobody keeps. What
is such a folder its name says, which nobody types, and a mark in it: others, whatever their names, are left alone.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator

_PREFIX = ".mbt-scratch-"
_NAME = re.compile(rf"{re.escape(_PREFIX)}[a-z0-9_]{{8}}")
_MARK = ".mbt-scratch"  # an empty file in each
_OWN_MODE = 0o700
_TRIES = 100
_own: str | None = None


@contextlib.contextmanager
def folder() -> Iterator[None]:
    """For the block, this process and its children make temporary files in a folder that goes with them."""
    global _own
    base, before, told = machine_folder(), tempfile.tempdir, os.environ.get("TMPDIR")
    _own, lock = _made(base)
    tempfile.tempdir = os.environ["TMPDIR"] = _own
    try:
        _remove_left_over(base)
        yield
    finally:
        remove()
        os.close(lock)
        tempfile.tempdir, _own = before, None
        del os.environ["TMPDIR"]
        if told is not None:
            os.environ["TMPDIR"] = told


def remove() -> None:
    """Removes the folder at once, for a handler of signals that ends the process."""
    if _own is not None:
        _delete(_own)


def machine_folder() -> str:
    """The temporary folder that all processes of this machine share; also in a child, which was told of ours."""
    told = tempfile.gettempdir()
    return os.path.dirname(told) if _NAME.fullmatch(os.path.basename(told)) else told


def others() -> list[str]:
    """The folders of other processes of this user, which run: those of dead ones went when `folder` began."""
    found = []
    for path in _named(machine_folder()):
        # Its process may have just ended, or it is another user's.
        with contextlib.suppress(OSError), _opened(path) as other:
            if path != _own and _is_scratch(other):
                found.append(path)
    return sorted(found)


def _made(base: str) -> tuple[str, int]:
    for _ in range(_TRIES):
        own = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
        lock = None
        # Another process may take it for one that was left, in the moment before it is locked.
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            lock = os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _keep(lock)
            return own, lock
        if lock is not None:
            os.close(lock)
    raise OSError(f"no temporary folder can be kept in {base}")


def _keep(folder: int) -> None:
    """Locks a new folder and marks it; in one that was removed meanwhile no file can be made."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # of a file system without locks: then nobody removes it either
        pass
    os.close(os.open(_MARK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder))


def _remove_left_over(base: str) -> None:
    """Removes what processes of this user left behind that were killed."""
    for path in _named(base):
        # Another process may keep it or remove it, or it is another user's.
        with contextlib.suppress(OSError), _opened(path) as left:
            if _is_scratch(left):
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete(path)


def _named(base: str) -> list[str]:
    with os.scandir(base) as entries:
        return [entry.path for entry in entries if _NAME.fullmatch(entry.name)]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _is_scratch(folder: int) -> bool:
    """Whether a folder of that name was made here, by this user: it has the mark, or its process died before that."""
    status = os.fstat(folder)
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != _OWN_MODE:
        return False
    names = os.listdir(folder)
    return not names or (_MARK in names and _is_mark(os.stat(_MARK, dir_fd=folder, follow_symlinks=False)))


def _is_mark(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_size == 0 and status.st_uid == os.getuid()


def _delete(path: str) -> None:
    """Deletes such a folder, its mark last: one that was deleted in part is known too."""
    with contextlib.suppress(OSError):
        for name in os.listdir(path):
            if name != _MARK:
                _delete_entry(os.path.join(path, name))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(path, _MARK))
        os.rmdir(path)


def _delete_entry(path: str) -> None:
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)

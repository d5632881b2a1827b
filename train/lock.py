"""The lock of a workdir: the kernel's, or where the file system has none, a file that is there while it is held."""

import contextlib
import errno
import fcntl
import os
import pathlib
from collections.abc import Iterator

from mbt.schemas.holder import Holder
from mbt.train import durable
from mbt.train.errors import UsageError

FILE = "lock"
BY_NAME_FILE = "lock.held"
NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_MOST_BYTES = 1 << 16


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
    """Holds an existing folder for the block; the system frees it when the process ends, however it ends.

    Where the file system has no `flock`, a killed process leaves its file, which the next one on that machine removes.

    Raises:
      UsageError: another process holds it.
      OSError: the folder cannot be written.
    """
    file = durable.opener(str(workdir / FILE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        by_kernel = _locked(workdir, file)
        if by_kernel:
            os.truncate(file, 0)
            os.write(file, Holder.this_process().to_json())
            yield
            return
    finally:
        os.close(file)
    with _by_name(workdir):
        yield


def _locked(workdir: pathlib.Path, file: int) -> bool:
    """Whether the kernel has locked the file; False where it cannot."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _refused(workdir, Holder.from_json(os.pread(file, _MOST_BYTES, 0))) from error
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return False
    if (other := _holder(workdir / BY_NAME_FILE)) is not None and not other.is_dead():
        raise _refused(workdir, other)  # it runs on a machine that has no flock here
    return True


@contextlib.contextmanager
def _by_name(workdir: pathlib.Path) -> Iterator[None]:
    path = workdir / BY_NAME_FILE
    if (other := _holder(path)) is not None and other.is_dead():
        path.unlink(missing_ok=True)
    try:
        file = durable.opener(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)
    except FileExistsError as error:
        advice = f"; this file system has no flock, so if that one is dead, remove {path}"
        raise _refused(workdir, other, advice) from error
    try:
        os.write(file, Holder.this_process(by_kernel=False).to_json())
        yield
    finally:
        os.close(file)
        path.unlink(missing_ok=True)


def _holder(path: pathlib.Path) -> Holder | None:
    try:
        return Holder.from_json(path.read_bytes())
    except FileNotFoundError:
        return None


def _refused(workdir: pathlib.Path, holder: Holder | None, advice: str = "") -> UsageError:
    who = f"process {holder.process} on {holder.host}" if holder else "an unknown process"
    return UsageError(
        f"--workdir={workdir}: another mbt-train is writing there ({who}); wait for it or stop it{advice}"
    )

"""The lock of a workdir: the kernel's, or where the file system has none, a file that is there while it is held."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from mbt.schemas import durable, lock_file
from mbt.schemas.holder import Holder
from mbt.train.errors import UsageError


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
    """Holds an existing folder for the block; the system frees it when the process ends, however it ends.

    Where the file system has no `flock`, a killed process leaves its file, which the next one on that machine removes.

    Raises:
      UsageError: another process holds it.
      OSError: the folder cannot be written.
    """
    file = durable.opener(str(workdir / lock_file.WORKDIR_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
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
        raise _refused(workdir, lock_file.content(file)) from error
    except OSError as error:
        if error.errno not in lock_file.NO_FLOCK:
            raise
        return False
    path = str(workdir / lock_file.WORKDIR_LOCK_BY_NAME)
    if (other := lock_file.read(path)) is not None and not other.is_dead():
        raise _refused(workdir, other, _advice(path))  # it runs on a machine that has no flock here
    return True


@contextlib.contextmanager
def _by_name(workdir: pathlib.Path) -> Iterator[None]:
    path = str(workdir / lock_file.WORKDIR_LOCK_BY_NAME)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_file.held_by_name(path))
        except lock_file.TakenError as error:
            raise _refused(workdir, error.holder, _advice(path)) from error
        yield


def _advice(path: str) -> str:
    return f"; a file system without flock keeps its lock, so if that one is dead, remove {path}"


def _refused(workdir: pathlib.Path, holder: Holder | None, advice: str = "") -> UsageError:
    who = f"process {holder.process} on {holder.host}" if holder else "an unknown process"
    return UsageError(
        f"--workdir={workdir}: another mbt-train is writing there ({who}); wait for it or stop it{advice}"
    )

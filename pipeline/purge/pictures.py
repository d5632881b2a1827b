"""Pictures of batches in the TensorBoard files of training runs: they show clips, and nobody can say whose."""

import contextlib
import fcntl
import mmap
import os
import uuid
from collections.abc import Iterator, Sequence

from mbt.pipeline import storage
from mbt.pipeline.errors import RefusedError
from mbt.schemas import durable, lock_file, tfrecord
from mbt.schemas.holder import Holder

_PICTURE = b"\x89PNG\r\n\x1a\n"
_EVENTS = "tfevents"


def files(workdirs: Sequence[str]) -> tuple[str, ...]:
    """The event files below these folders that hold pictures.

    Raises:
      RefusedError: there is no such folder on this machine.
    """
    found = []
    for workdir in workdirs:
        if not storage.is_local(workdir) or not os.path.isdir(workdir):
            raise RefusedError(f"--workdirs={workdir}: no such folder on this machine")
        for base, _, names in os.walk(workdir):
            found += [os.path.join(base, name) for name in names if _EVENTS in name]
    return tuple(sorted(path for path in set(found) if _has_picture(path)))


@contextlib.contextmanager
def held(workdirs: Sequence[str]) -> Iterator[None]:
    """Holds the training runs below these folders, so that none begins meanwhile either.

    Raises:
      RefusedError: one of them is being written.
    """
    with contextlib.ExitStack() as stack:
        for folder in _runs(workdirs):
            path = os.path.join(folder, lock_file.WORKDIR_LOCK_BY_NAME)
            if _locked(folder, stack):
                _refuse_held(path)
                continue
            try:
                stack.enter_context(lock_file.held_by_name(path))
            except lock_file.TakenError as error:
                raise _refused(path, error.holder) from error
        yield


def _runs(workdirs: Sequence[str]) -> list[str]:
    """The folders of training runs below these, each once."""
    names = {lock_file.WORKDIR_LOCK, lock_file.WORKDIR_LOCK_BY_NAME}
    found = [base for workdir in workdirs for base, _, inner in os.walk(workdir) if names & set(inner)]
    return sorted({os.path.realpath(base) for base in found})


def _locked(folder: str, stack: contextlib.ExitStack) -> bool:
    """Whether the kernel has locked a run's folder for the stack's time; False where it cannot.

    Raises:
      RefusedError: it has for another process.
    """
    path = os.path.join(folder, lock_file.WORKDIR_LOCK)
    try:
        # For writing: a network file system may lock nothing else.
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, file)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError as error:
        raise RefusedError(f"{folder} is being written by a training run: stop it first") from error
    except OSError as error:
        if error.errno not in lock_file.NO_FLOCK:
            raise
        return False
    return True


def _refuse_held(path: str) -> None:
    """Refuses where a run holds its folder by a file; one that says nothing of its holder may be any run's."""
    holder = lock_file.read(path)
    if os.path.lexists(path) and (holder is None or not holder.is_dead()):
        raise _refused(path, holder)


def _refused(path: str, holder: Holder | None) -> RefusedError:
    who = holder or "an unknown process"
    return RefusedError(
        f"{os.path.dirname(path)} is being written by a training run ({who}): stop it first; if it is dead, "
        f"remove {path}"
    )


def remove(paths: Sequence[str]) -> None:
    """Takes the pictures out of event files; numbers and texts stay."""
    for path in paths:
        attempt = f"{path}.{uuid.uuid4().hex}.tmp"
        with open(attempt, "wb") as file:
            for event in _events(path):
                if _PICTURE not in event:
                    header, footer = tfrecord.frame(event)
                    file.write(header + event + footer)
            file.flush()
            os.fsync(file.fileno())
        os.replace(attempt, path)
    durable.flush_folders_of(paths)


def _has_picture(path: str) -> bool:
    """Also of an event that was cut short."""
    if not os.path.getsize(path):
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_PICTURE) >= 0


def _events(path: str) -> Iterator[bytes]:
    """The whole events of a file: of the last one its process may have written a part."""
    with open(path, "rb") as file:
        try:
            yield from tfrecord.read_records(file)
        except tfrecord.CorruptRecordError:
            return

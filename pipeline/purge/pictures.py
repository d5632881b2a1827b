"""Pictures of batches in the TensorBoard files of training runs: they show clips, and nobody can say whose."""

import contextlib
import fcntl
import mmap
import os
import uuid
from collections.abc import Iterator, Sequence

from mbt.pipeline import storage
from mbt.pipeline.errors import RefusedError
from mbt.schemas import tfrecord

_PICTURE = b"\x89PNG\r\n\x1a\n"
_EVENTS = "tfevents"
_LOCK = "lock"


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
    """Holds the training runs below these folders.

    Raises:
      RefusedError: one of them is being written.
    """
    with contextlib.ExitStack() as stack:
        for workdir in workdirs:
            for base, _, names in os.walk(workdir):
                if _LOCK in names:
                    path = os.path.join(base, _LOCK)
                    file = stack.enter_context(open(path, "rb"))
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError as error:
                        raise RefusedError(f"{base} is being written by a training run: stop it first") from error
        yield


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

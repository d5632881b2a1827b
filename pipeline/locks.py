"""Locks of one holder at a time: the kernel's on this machine, an object on gs:// and s3://."""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import logging
import os
import socket
import sys
import uuid
from typing import IO, Any, Protocol

from mbt.pipeline import storage

_TRIES = 1000  # to open a file in a folder that others make and remove
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that has a lock, for a person."""

    process: int
    host: str
    started: str
    command: str
    token: str  # tells our own lock, whose creation was repeated because its answer was lost, from another's

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} ({self.command}), since {self.started}"


def _me() -> Holder:
    words = [os.path.basename(sys.argv[0]), *sys.argv[1:2]]  # not all flags: a lock is no place for what they hold
    now = datetime.datetime.now(datetime.UTC)
    return Holder(
        process=os.getpid(),
        host=socket.gethostname(),
        started=now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        command=" ".join(words),
        token=uuid.uuid4().hex,
    )


def _to_json(holder: Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder)).encode()


def _from_json(text: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (TypeError, ValueError):
        return None


class Lock(Protocol):
    """A lock that has a path."""

    advice: str  # what to do about one that another holds

    def take(self) -> bool:
        """Takes it; False where another has it."""

    def is_held(self) -> bool:
        """Whether anybody has it."""

    def holder(self) -> Holder | None:
        """Who has it, as far as that is known."""

    def remove(self) -> None:
        """Removes it, whoever holds it."""

    def release(self) -> None:
        """Gives it back, if this object took it."""

    def forget(self) -> None:
        """In a forked process: the lock is its parent's."""


def lock(path: str) -> Lock:
    """The lock at a path, which nobody has taken by that."""
    if storage.is_local(path):
        return _File(path)
    return _Object(path, storage.conditional(path))


class _File:
    """A file that the kernel keeps locked for the process that holds it."""

    advice = (
        "Wait for it, or choose another --output. Its lock goes when it ends; should a network file system keep that "
        "of a machine that is gone, add --take_over."
    )

    def __init__(self, path: str):
        self._path = path
        self._file: IO[bytes] | None = None
        self._made_folder = False

    def take(self) -> bool:
        while self._file is None:
            file = self._opened()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(file, self._path):
                    self._file = file
            except BlockingIOError:
                return False
            finally:
                if self._file is None:  # refused, or its last holder has just removed the file
                    file.close()
        self._file.truncate(0)
        self._file.write(_to_json(_me()))
        self._file.flush()
        return True

    def _opened(self) -> IO[bytes]:
        for _ in range(_TRIES):  # its last holder may have made the folder, and may just have removed it
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                return self._open()
        return self._open()

    def _open(self) -> IO[bytes]:
        folder = os.path.dirname(self._path)
        self._made_folder = not os.path.isdir(folder)
        os.makedirs(folder, exist_ok=True)
        return open(self._path, "ab+")  # stays open as long as the lock is held

    def is_held(self) -> bool:
        try:
            with open(self._path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def holder(self) -> Holder | None:
        try:
            return _from_json(storage.read(self._path))
        except FileNotFoundError:
            return None

    def remove(self) -> None:
        storage.delete(self._path)

    def release(self) -> None:
        if self._file is None:
            return
        if _is_at(self._file, self._path):
            storage.delete(self._path)
        self._file.close()
        self._file = None
        if self._made_folder:
            with contextlib.suppress(OSError):  # a command that was refused leaves nothing behind
                os.rmdir(os.path.dirname(self._path))

    def forget(self) -> None:
        """Or it would keep the lock after its parent's death."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _is_at(file: IO[bytes], path: str) -> bool:
    """Whether an open file is the one at a path, and was not replaced."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


class _Object:
    """An object that is there as long as its maker, or nobody after a crash, holds it."""

    advice = (
        "Wait for it, or choose another --output. If it is dead, for a process that is killed leaves its lock here, "
        "add --take_over."
    )

    def __init__(self, path: str, store: storage.ConditionalStore):
        self._path = path
        self._store = store
        self._version: Any = None

    def take(self) -> bool:
        ours = _me()
        self._version = self._store.create_new(self._path, _to_json(ours))
        if self._version is None:
            found = self._store.read_version(self._path)
            if found is not None and _from_json(found[0]) == ours:
                self._version = found[1]
        return self._version is not None

    def is_held(self) -> bool:
        return self._store.exists(self._path)

    def holder(self) -> Holder | None:
        found = self._store.read_version(self._path)
        return _from_json(found[0]) if found else None

    def remove(self) -> None:
        found = self._store.read_version(self._path)
        if found is not None:
            self._store.delete_version(self._path, found[1])

    def release(self) -> None:
        version, self._version = self._version, None
        if version is None:
            return
        try:
            self._store.delete_version(self._path, version)
        except storage.errors() as error:
            _LOG.warning(
                "%s could not be removed, so the next command needs --take_over: %s", self._path, storage.said(error)
            )

    def forget(self) -> None:
        self._version = None

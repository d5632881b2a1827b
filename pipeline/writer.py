"""One writer at a time for a dataset, or one for each of its disjoint parts.

A writer first takes the lock of its part, then looks for others that it may not run beside, and gives up if there is
one. Of two that start at once, at least one sees the other.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import logging
import os
import re
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import IO, Protocol

from mbt.pipeline import gcs, storage

_NAME = re.compile(r"\.writer(?:-(\d+)-of-(\d+))?")
_LET_GO_S = 5
_LOG = logging.getLogger(__name__)


class WriterError(RuntimeError):
    """The dataset cannot be written by this command; the message says what to do."""


class HeldError(WriterError):
    """Another command is writing the dataset; the message names it and says what to do."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Which part of a dataset a command works on: `number` of `of`, counted from 1.

    Raises:
      ValueError: there is no such part.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ValueError(f"there is no part {self}: the first of two is 1/2, the second 2/2")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The part that a flag names, such as `1/2`.

        Raises:
          ValueError: it names none.
        """
        numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not numbers:
            raise ValueError(f"{text!r} names no part: the first of two is 1/2, the second 2/2")
        return cls(int(numbers[1]), int(numbers[2]))

    def excludes(self, other: "Part") -> bool:
        """Whether the two may not be written at once; the whole is 1/1."""
        return self.of != other.of or self.number == other.number


WHOLE = Part(1, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Holder:
    process: int
    host: str
    started: str
    command: str
    token: str  # tells our own lock, whose creation was repeated because its answer was lost, from another's

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} ({self.command}), since {self.started}"


def _me() -> _Holder:
    words = [os.path.basename(sys.argv[0]), *sys.argv[1:2]]  # not all flags: a lock is no place for what they hold
    now = datetime.datetime.now(datetime.UTC)
    return _Holder(
        process=os.getpid(),
        host=socket.gethostname(),
        started=now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        command=" ".join(words),
        token=uuid.uuid4().hex,
    )


def _to_json(holder: _Holder) -> bytes:
    return json.dumps(dataclasses.asdict(holder)).encode()


def _from_json(text: bytes) -> _Holder | None:
    try:
        return _Holder(**json.loads(text))
    except (TypeError, ValueError):
        return None


def is_lock(name: str) -> bool:
    """Whether a file directly in ROOT is one of ours."""
    return _NAME.fullmatch(name) is not None


def _name(part: Part) -> str:
    return ".writer" if part == WHOLE else f".writer-{part.number}-of-{part.of}"


def _part(name: str) -> Part | None:
    match = _NAME.fullmatch(name)
    with contextlib.suppress(ValueError):
        return match and (Part(int(match[1]), int(match[2])) if match[1] else WHOLE)
    return None


class _Lock(Protocol):
    """The lock of one part of one dataset."""

    advice: str  # what to do about one that is held

    def take(self) -> bool:
        """Takes it; False where another has it."""

    def is_held(self, part: Part) -> bool:
        """Whether anybody has the lock of a part."""

    def holder(self, part: Part) -> _Holder | None:
        """Who has the lock of a part, as far as that is known."""

    def remove(self, part: Part) -> None:
        """Removes the lock of a part, whoever holds it."""

    def release(self) -> None:
        """Gives it back."""


@contextlib.contextmanager
def hold(root: str, part: Part = WHOLE, *, take_over: bool = False) -> Iterator[None]:
    """Holds a dataset, or a part of it, for this process.

    Beside a part, others of the same number of parts may be held; the whole excludes all.

    On this machine's file systems the lock is the kernel's (`flock`) and goes with the process, however that ends. On
    gs:// it is an object that is made only if there is none (precondition `ifGenerationMatch=0`): a process that is
    killed leaves it, and `take_over` removes it. Other stores have no lock: a warning says so.

    Args:
      root: the dataset's.
      part: what to hold.
      take_over: removes the locks that are in the way, which is right when their holders are dead.

    Raises:
      HeldError: another process holds what this one may not write beside.
      WriterError: the folder or bucket cannot be written.
    """
    lock = _lock(root, part)
    if lock is None:
        _LOG.warning("%s: there are no locks on this store, so see to it that no other command writes there", root)
        yield
        return
    _HELD.add(lock)
    try:
        _take(lock, root, part, take_over)
        yield
    finally:
        _HELD.discard(lock)
        lock.release()


def let_go() -> None:
    """Gives back what this process holds, for a handler of signals that ends the process at once.

    Waits 5 s at most. The work is done in a thread: the one that the handler interrupted may hold what it needs.
    """
    threads = [threading.Thread(target=lock.release, daemon=True) for lock in list(_HELD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_LET_GO_S)


def _lock(root: str, part: Part) -> "_File | _Object | None":
    if storage.is_local(root):
        return _File(root, part)
    return _Object(root, part) if storage.is_gcs(root) else None


def _take(lock: _Lock, root: str, part: Part, take_over: bool) -> None:
    try:
        if take_over:
            for other in _in_the_way(lock, root, part):
                lock.remove(other)
        if not lock.take():
            raise _held(lock, root, part)
        for other in _in_the_way(lock, root, part):
            if other != part:
                raise _held(lock, root, other)
    except OSError as error:
        raise WriterError(f"--output={root}: {error.strerror or error}") from error
    except gcs.ERRORS as error:
        raise WriterError(f"--output={root}: {error}") from error


def _in_the_way(lock: _Lock, root: str, part: Part) -> list[Part]:
    """Parts that are held and exclude this one, itself among them."""
    there = filter(None, map(_part, sorted(storage.sizes(root))))
    return [other for other in there if part.excludes(other) and lock.is_held(other)]


def _held(lock: _Lock, root: str, other: Part) -> HeldError:
    what = root if other == WHOLE else f"part {other} of {root}"
    return HeldError(f"{what} is being written by {lock.holder(other) or 'another process'}. {lock.advice}")


class _File:
    """A file that the kernel keeps locked for the process that holds it."""

    advice = (
        "Wait for it, or choose another --output. Its lock goes when it ends; should a network file system keep that "
        "of a machine that is gone, add --take_over."
    )

    def __init__(self, root: str, part: Part):
        self._root = root
        self._path = storage.join(root, _name(part))
        self._file: IO[bytes] | None = None
        self._made_root = False

    def take(self) -> bool:
        self._made_root = not os.path.isdir(self._root)
        os.makedirs(self._root, exist_ok=True)
        while self._file is None:
            file = open(self._path, "ab+")  # noqa: SIM115  stays open as long as the lock is held
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

    def is_held(self, part: Part) -> bool:
        try:
            with open(storage.join(self._root, _name(part)), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def holder(self, part: Part) -> _Holder | None:
        try:
            return _from_json(storage.read(storage.join(self._root, _name(part))))
        except FileNotFoundError:
            return None

    def remove(self, part: Part) -> None:
        storage.delete(storage.join(self._root, _name(part)))

    def release(self) -> None:
        if self._file is None:
            return
        if _is_at(self._file, self._path):
            storage.delete(self._path)
        self._file.close()
        self._file = None
        if self._made_root:
            with contextlib.suppress(OSError):  # a command that was refused leaves nothing behind
                os.rmdir(self._root)

    def forget(self) -> None:
        """In a forked process, which would keep the lock after its parent's death."""
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
    """An object that is there as long as its maker, or nobody after a crash, works on the part."""

    advice = (
        "Wait for it, or choose another --output. If it is dead, for a process that is killed leaves its lock here, "
        "add --take_over."
    )

    def __init__(self, root: str, part: Part):
        self._root = root
        self._path = storage.join(root, _name(part))
        self._generation: int | None = None

    def take(self) -> bool:
        ours = _me()
        self._generation = gcs.create_new(self._path, _to_json(ours))
        if self._generation is None:
            found = gcs.read_generation(self._path)
            if found is not None and _from_json(found[0]) == ours:
                self._generation = found[1]
        return self._generation is not None

    def is_held(self, part: Part) -> bool:
        return gcs.exists(storage.join(self._root, _name(part)))

    def holder(self, part: Part) -> _Holder | None:
        found = gcs.read_generation(storage.join(self._root, _name(part)))
        return _from_json(found[0]) if found else None

    def remove(self, part: Part) -> None:
        path = storage.join(self._root, _name(part))
        found = gcs.read_generation(path)
        if found is not None:
            gcs.delete_generation(path, found[1])

    def release(self) -> None:
        generation, self._generation = self._generation, None
        if generation is None:
            return
        try:
            gcs.delete_generation(self._path, generation)
        except gcs.ERRORS as error:
            _LOG.warning("%s could not be removed, so the next command needs --take_over: %s", self._path, error)

    def forget(self) -> None:
        """In a forked process: the lock is its parent's."""
        self._generation = None


_HELD: set[_File | _Object] = set()


def _forget_all() -> None:
    for lock in _HELD:
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)

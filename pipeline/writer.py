"""One writer at a time for a dataset, or one for each of its disjoint parts.

A writer first takes the lock of its part, then looks for others that it may not run beside, and gives up if there is
one. Of two that start at once, at least one sees the other.
"""

import contextlib
import dataclasses
import os
import re
import threading
from collections.abc import Iterator

from mbt.pipeline import locks, storage

_NAME = re.compile(r"\.writer(?:-(\d+)-of-(\d+))?")
_LET_GO_S = 5


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


@contextlib.contextmanager
def hold(root: str, part: Part = WHOLE, *, take_over: bool = False) -> Iterator[None]:
    """Holds a dataset, or a part of it, for this process.

    Beside a part, others of the same number of parts may be held; the whole excludes all.

    On this machine's file systems the lock is the kernel's (`flock`) and goes with the process, however that ends. On
    gs:// and s3:// it is an object that is made only if there is none: a process that is killed leaves it, and
    `take_over` removes it. A store that looks like S3 may not know that condition, and then a warning says so.

    Args:
      root: the dataset's.
      part: what to hold.
      take_over: removes the locks that are in the way, which is right when their holders are dead.

    Raises:
      HeldError: another process holds what this one may not write beside.
      WriterError: the folder or bucket cannot be written.
    """
    lock = _lock(root, part)
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


def _lock(root: str, part: Part) -> locks.Lock:
    return locks.lock(storage.join(root, _name(part)))


def _take(lock: locks.Lock, root: str, part: Part, take_over: bool) -> None:
    try:
        if take_over:
            for other in _in_the_way(root, part):
                _lock(root, other).remove()
        if not lock.take():
            raise _held(root, part)
        for other in _in_the_way(root, part):
            if other != part:
                raise _held(root, other)
    except storage.errors() as error:  # first, for some of them are OSErrors too
        raise WriterError(f"--output={root}: {storage.said(error)}") from error
    except OSError as error:
        raise WriterError(f"--output={root}: {error.strerror or error}") from error


def _in_the_way(root: str, part: Part) -> list[Part]:
    """Parts that are held and exclude this one, itself among them."""
    there = filter(None, map(_part, sorted(storage.sizes(root))))
    return [other for other in there if part.excludes(other) and _lock(root, other).is_held()]


def _held(root: str, other: Part) -> HeldError:
    what = root if other == WHOLE else f"part {other} of {root}"
    lock = _lock(root, other)
    return HeldError(f"{what} is being written by {lock.holder() or 'another process'}. {lock.advice}")


_HELD: set[locks.Lock] = set()


def _forget_all() -> None:
    for lock in _HELD:
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)

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
from mbt.schemas import lock_file

_NAME = re.compile(r"\.writer(?:-(\d+)-of-(\d+))?")
_LEFT = re.compile(rf"{_NAME.pattern}\.[0-9a-f]+{re.escape(lock_file.GRAVE)}")
_FOLDERS = ("media", "ledger", "shards", "snapshots", "tmp", "purge")  # of ROOT
_DEEP = ("ledger", "snapshots")  # and of these the folders in them
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
    return _NAME.fullmatch(name) is not None or _LEFT.fullmatch(name) is not None


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

    On this machine's file systems the lock is the kernel's (`flock`) and goes with the process, however that ends,
    but for those that have no `flock` (see `file_lock`). On gs:// and s3:// it is an object that is made only if there
    is none: a process that is killed leaves it, and `take_over` removes it. A store that looks like S3 may not know
    that condition, and then a warning says so.

    Args:
      root: the dataset's.
      part: what to hold.
      take_over: removes the locks that are in the way, which is right when their holders are dead.

    Raises:
      HeldError: another process holds what this one may not write beside.
      WriterError: the folder or bucket cannot be written, or a symbolic link would lead out of it.
    """
    _check_links(root)
    lock = _lock(root, part)
    _HELD.add(lock)
    try:
        _take(lock, root, part, take_over)
        _settle(root)
        yield
    finally:
        _HELD.discard(lock)
        lock.release()


def _settle(root: str) -> None:
    """Puts names on the disk that a killed command gave and did not come to flush: this one goes on from them.

    Not those of media, of which there may be millions in hundreds of folders: what the ledger has no word on is
    flushed when it is taken over.
    """
    for name in _FOLDERS:
        settle = storage.flush_names if name in _DEEP else storage.flush_folder
        settle(storage.join(root, name))
    storage.flush_folder(root)
    storage.flush_folder(os.path.dirname(root))


def _check_links(root: str) -> None:
    """Refuses folders in ROOT that are links: who may write there could have us write anywhere.

    Raises:
      WriterError: naming the link.
    """
    if not storage.is_local(root):
        return
    for folder in (os.path.join(root, name) for name in _FOLDERS):
        for path in (folder, *_inner(folder)):
            if os.path.islink(path):
                raise WriterError(
                    f"--output={root}: {path} is a symbolic link, and none is followed for writing: put the folder "
                    "itself there, or mount what it leads to (mount --bind)"
                )


def _inner(folder: str) -> list[str]:
    """What in a folder of ROOT may be a folder; shards are files, which a rename replaces."""
    if os.path.basename(folder) == "shards" or os.path.islink(folder) or not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_symlink()]


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

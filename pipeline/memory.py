"""What the decodings of one process may take of the machine's memory, together.

Two things bound it. Each ffmpeg process has a share of address space; one that needs more runs again alone, and has all
of it (`alone`). And of decoded clips that wait to be written a process holds a fixed number of bytes (`Room`), besides
the one whose turn it is, which never waits.
"""

import concurrent.futures
import contextlib
import contextvars
import functools
import resource
import threading
import time
from collections.abc import Iterator

WHOLE_BYTES = 2 << 30  # of address space, for an ffmpeg that runs alone; a second of 4K60, 10 bits, takes 1.7 GiB
SHARE_BYTES = 1 << 30  # for each of those that run at the same time; ordinary clips take less than 0.4 GiB
ROOM_BYTES_PER_THREAD = 64 << 20  # a clip of ten seconds has 6 MB; encoding copies it several times
_REACHED = 0.9  # of the address space: with so little left something is refused
_LOOKS_EVERY_S = 0.05


class _Turns:
    """Lets either any number of threads run, or one alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._running = 0
        self._waiting = 0
        self._one_is_alone = False

    def begin(self) -> None:
        """Waits while somebody runs alone, or waits for that."""
        with self._condition:
            self._condition.wait_for(lambda: not self._one_is_alone and not self._waiting)
            self._running += 1

    def end(self) -> None:
        """Ends what `begin` began."""
        with self._condition:
            self._running -= 1
            self._condition.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else runs."""
        with self._condition:
            self._waiting += 1
            try:
                self._condition.wait_for(lambda: not self._one_is_alone and not self._running)
                self._one_is_alone = True
            finally:
                self._waiting -= 1
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._one_is_alone = False
                self._condition.notify_all()


class Room:
    """Bytes for decoded clips that are not written yet."""

    def __init__(self, size: int):
        self.free = size
        self.condition = threading.Condition()


class Place:
    """What one clip takes of a room."""

    def __init__(self, room: Room, *, is_next: bool = False):
        """Begins with nothing.

        Args:
          room: of the process.
          is_next: whether no other clip must be written first: then this one never waits, and takes nothing.
        """
        self._room = room
        self._is_next = is_next
        self._is_abandoned = False
        self._taken = 0

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """While this thread works on the clip."""
        token = _place.set(self)
        try:
            yield
        finally:
            _place.reset(token)

    def call(self) -> None:
        """Says that it is the clip's turn."""
        with self._room.condition:
            self._is_next = True
        self.begin_anew()

    def abandon(self) -> None:
        """Says that nobody wants the clip any more: whoever works on it and waits ends with a `CancelledError`."""
        with self._room.condition:
            self._is_abandoned = True
        self.begin_anew()

    def begin_anew(self) -> None:
        """Gives back what was taken."""
        with self._room.condition:
            self._room.free += self._taken
            self._taken = 0
            self._room.condition.notify_all()

    def try_to_take(self, size: int) -> bool:
        """Takes bytes; returns whether it could."""
        with self._room.condition:
            if self._is_abandoned:
                raise concurrent.futures.CancelledError
            if self._is_next:
                return True
            if size > self._room.free:
                return False
            self._room.free -= size
            self._taken += size
            return True

    def take(self, size: int) -> None:
        """Takes bytes, when there are as many, or it is the clip's turn."""
        with self._room.condition:
            self._room.condition.wait_for(lambda: self.try_to_take(size))

    def wait_for_turn(self) -> None:
        """Waits until all clips before this one are written."""
        with self._room.condition:
            self._room.condition.wait_for(lambda: self._is_next or self._is_abandoned)


_turns = _Turns()
_is_alone = contextvars.ContextVar("is_alone", default=False)
_place: contextvars.ContextVar[Place | None] = contextvars.ContextVar("place", default=None)
_OWN_TURN = Place(Room(0), is_next=True)


def place() -> Place:
    """That of the clip that this thread works on."""
    return _place.get() or _OWN_TURN


@functools.cache
def room(threads: int) -> Room:
    """The one of this process, which works on as many clips at a time."""
    return Room(threads * ROOM_BYTES_PER_THREAD)


@contextlib.contextmanager
def turn() -> Iterator[int]:
    """While an ffmpeg process runs; gives the bytes of address space that it may have."""
    if _is_alone.get():
        yield WHOLE_BYTES
        return
    _turns.begin()
    try:
        yield SHARE_BYTES
    finally:
        _turns.end()


def take_room(size: int) -> bool:
    """Takes bytes for a clip within a `turn`; returns whether that took time. Meanwhile another may run alone."""
    here = place()
    if here.try_to_take(size):
        return False
    _turns.end()  # the clip whose turn it is may be waiting to run alone
    try:
        here.take(size)
    finally:
        _turns.begin()
    return True


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """While no other thread of this process decodes. A clip among others waits for its turn first."""
    place().wait_for_turn()
    with _turns.alone():
        token = _is_alone.set(True)
        try:
            yield
        finally:
            _is_alone.reset(token)


class Meter:
    """The largest address space that was seen of a process."""

    def __init__(self, process: int):
        self._file = f"/proc/{process}/statm"
        self._looked_s = 0.0
        self._most_bytes = 0

    def look(self) -> None:
        """Looks, unless that was done a moment ago."""
        if (now_s := time.monotonic()) < self._looked_s + _LOOKS_EVERY_S:
            return
        self._looked_s = now_s
        with contextlib.suppress(OSError, IndexError), open(self._file, encoding="ascii") as file:  # it may have ended
            self._most_bytes = max(self._most_bytes, int(file.read().split()[0]) * resource.getpagesize())

    def has_reached(self, limit: int) -> bool:
        """Whether the process came up to its limit."""
        return self._most_bytes >= _REACHED * limit


def is_free() -> bool:
    """Whether the machine has as much memory left as one ffmpeg may take: then its own limit stopped it."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            sizes = {line.partition(":")[0]: int(line.split()[1]) << 10 for line in file}
        with open("/proc/sys/vm/overcommit_memory", encoding="ascii") as file:
            is_strict = file.read().strip() == "2"
    except OSError:  # not Linux, where nothing limits an ffmpeg but the machine
        return False
    promised = sizes["CommitLimit"] - sizes["Committed_AS"] if is_strict else WHOLE_BYTES
    return min(sizes["MemAvailable"], promised) >= WHOLE_BYTES

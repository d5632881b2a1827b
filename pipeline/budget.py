"""What one machine may ask of the network at a time, shared by all its worker processes.

A limit for each process would multiply with them. The shares are file locks in a folder of the user's, which the kernel
gives back when a process dies, however it dies.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator

from mbt.pipeline import scratch
from mbt.schemas.lock_file import NO_FLOCK

_POLL_S = 0.02
_OTHER_PREFIX = "mbt-fetch-own-"


class Budget:
    """Slots for downloads, and a pace for requests."""

    def __init__(self, downloads: int, interval_s: float = 0.0, folder: str | None = None):
        """Makes a process's view of the machine's budget.

        Args:
          downloads: at a time, on this machine.
          interval_s: between the starts of two downloads that keep a pace.
          folder: of the locks; by default the user's own in the temporary folder.
        """
        self._downloads = downloads
        self._interval_s = interval_s
        self._folder = folder or _folder_of_user()
        self._here = threading.BoundedSemaphore(downloads)

    @contextlib.contextmanager
    def download(self, *, paced: bool = False) -> Iterator[None]:
        """Waits for a slot, and holds it."""
        with self._here, self._slot():
            if paced and self._interval_s:
                self._wait_for_turn()
            yield

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        files = [os.open(self._path(f"download-{slot}"), os.O_CREAT | os.O_RDWR, 0o600) for slot in self._slots()]
        try:
            while not any(_locked(file) for file in files):
                time.sleep(_POLL_S)
            yield
        finally:
            for file in files:
                os.close(file)

    def _slots(self) -> range:
        return range(self._downloads)

    def _wait_for_turn(self) -> None:
        """The file holds the time of the next turn; each process takes one and writes the one after it."""
        with open(self._path("pace"), "a+", encoding="ascii") as file:
            with contextlib.suppress(OSError):  # as in `_locked`
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            now = time.time()
            turn = max(now, float(file.read() or 0))
            if turn > now + 100 * self._interval_s + 60:
                turn = now  # the clock was set back
            file.truncate(0)
            file.write(repr(turn + self._interval_s))
        time.sleep(max(0.0, turn - now))

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise  # where there are no locks, each process counts for itself
    return True


def _folder_of_user() -> str:
    """A folder that nobody else can have put there, the same for all processes of this user."""
    base = scratch.machine_folder()
    usual = os.path.join(base, f"mbt-fetch-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(usual, 0o700)
    if _is_own(usual):
        return usual
    # Another user has that name. What has a name that nobody can foresee is found by its owner.
    if not (found := _own_folders(base)):
        tempfile.mkdtemp(prefix=_OTHER_PREFIX, dir=base)
        found = _own_folders(base)  # two processes may have made one each, and take the same
    return found[0]


def _own_folders(base: str) -> list[str]:
    names = sorted(name for name in os.listdir(base) if name.startswith(_OTHER_PREFIX))
    return [path for name in names if _is_own(path := os.path.join(base, name))]


def _is_own(folder: str) -> bool:
    status = os.lstat(folder)
    return status.st_uid == os.getuid() and stat.S_ISDIR(status.st_mode)

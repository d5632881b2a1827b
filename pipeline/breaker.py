"""The breaker: stops a whole run that is being throttled, on every worker, before it mistakes refusal for loss."""

import collections
import json
import threading
import time

from mbt.pipeline import storage
from mbt.schemas.clip import Outcome

WINDOW = 40  # attempts that count as recent
FEWEST = 12  # before a share means anything
BLOCKED_SHARE = 0.5
_LOOK_S = 1.0
_LOOK_REMOTE_S = 10.0


class Breaker:
    """A worker process's view of the run's breaker, which is an object in the run's folder."""

    def __init__(self, work: str):
        self._path = path(work)
        self._recent: collections.deque[bool] = collections.deque(maxlen=WINDOW)
        self._lock = threading.Lock()
        self._why: str | None = None
        self._unwritten: OSError | None = None
        self._looked = 0.0
        self._interval_s = _LOOK_S if storage.is_local(work) else _LOOK_REMOTE_S

    def record(self, outcome: Outcome, detail: str) -> None:
        """Counts an attempt; trips where too many of the recent ones were refused."""
        with self._lock:
            self._recent.append(outcome == Outcome.BLOCKED)
            blocked, count = sum(self._recent), len(self._recent)
        if count >= FEWEST and blocked >= BLOCKED_SHARE * count:
            self.trip(f"{blocked} of the last {count} attempts were refused ({detail})")

    def trip(self, why: str) -> None:
        """Stops the run: this process at once, the others and the launcher when they read it, see `settle`."""
        if self.tripped() is None:
            self._why = why
            self._write()

    def settle(self) -> None:
        """Raises OSError where the disk is too full to tell the launcher that the run was stopped."""
        with self._lock:
            if self._unwritten is not None:
                self._write()
            if self._unwritten is not None:
                raise self._unwritten

    def _write(self) -> None:
        try:
            storage.write(self._path, json.dumps({"why": self._why}).encode())
            self._unwritten = None
        except OSError as error:
            self._unwritten = error

    def tripped(self) -> str | None:
        """Why the run is to stop, or None."""
        if self._why is None and time.monotonic() - self._looked >= self._interval_s:
            self._looked = time.monotonic()
            self._why = read(self._path)
        return self._why


def path(work: str) -> str:
    """Where the breaker of a run lies."""
    return storage.join(work, "breaker.json")


def read(breaker: str) -> str | None:
    """What a breaker says, or None where it has not tripped."""
    try:
        return json.loads(storage.read(breaker))["why"]
    except FileNotFoundError:
        return None

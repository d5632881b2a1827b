"""The breaker: stops asking a host that is throttled, down or behind a login, before refusal is mistaken for loss.

All workers share it, and the ledger keeps it, for what such a host said in such a run settles nothing. Other hosts are
asked on: one that is down must not keep the rest of a list from being fetched.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import threading
import time

import numpy as np

from mbt.pipeline import storage, storms
from mbt.schemas import own_json
from mbt.schemas.clip import Outcome

ALL = ""  # in the place of a host: the machine or the settings are at fault
_PENDING = -1  # came, and is being probed
_LOOK_S = 1.0
_LOOK_REMOTE_S = 10.0


class Breaker:
    """A worker process's view of the run's breaker, which is a folder with a file for each host that was given up."""

    def __init__(self, folder: str, lost_share: float = storms.LOST_SHARE):
        self._folder = folder
        self._lost_share = lost_share
        self._recent: dict[str, collections.OrderedDict[str, int]] = {}
        self._lock = threading.Lock()
        self._refusals = itertools.count()
        self._why: dict[str, str] = {}
        self._untold: dict[str, str] = {}
        self._looked = 0.0
        self._interval_s = _LOOK_S if storage.is_local(folder) else _LOOK_REMOTE_S

    def arrived(self, source: str) -> None:
        """Takes note that something came for a source, of which `record` says later what it is.

        Answers are judged in the order in which they came: probing a good one takes longer than hearing of a bad one.
        """
        if host := storms.host(source):
            with self._lock:
                recent = self._recent.setdefault(host, collections.OrderedDict())
                recent[source] = _PENDING
                recent.move_to_end(source)

    def record(self, source: str, outcome: Outcome, reason: str, detail: str, known: str = "") -> None:
        """Takes note of an answer; trips where too many of the host's recent ones brought nothing.

        Args:
          source: that was asked for; of several answers for it the newest counts, and each refusal.
          outcome: of the attempt.
          reason: of the outcome.
          detail: for a person.
          known: outcome of the source's earlier failure while its host was well, which is expected to come again.
        """
        kind, host = storms.kind(outcome, reason), storms.host(source)
        if not host:  # a file on this machine
            return
        with self._lock:
            recent = self._recent.setdefault(host, collections.OrderedDict())
            if recent.get(source) != _PENDING:
                recent.pop(source, None)
            # Each refusal counts, also those of one source: to go on asking makes it worse.
            key = f"{source} {next(self._refusals)}" if kind == storms.BLOCKED else source
            recent[key] = kind
            if kind and known and (kind != storms.BLOCKED or known == Outcome.BLOCKED):
                del recent[key]
            kinds = np.array([kind for kind in recent.values() if kind != _PENDING])[-storms.WINDOW :]
            while len(recent) > storms.WINDOW and next(iter(recent.values())) != _PENDING:
                recent.popitem(last=False)
        if kind and storms.is_storm(kinds, self._lost_share):
            self.trip(f"{_said(kinds, host)} ({detail or reason})", host)

    def trip(self, why: str, host: str = ALL) -> None:
        """Stops asking a host, or everything: this process at once, the others when they read it, see `settle`."""
        with self._lock:
            if host in self._why:
                return
            self._why[host] = self._untold[host] = why
        with contextlib.suppress(OSError, *storage.errors()):  # `settle` is called again at the end of a bundle
            self.settle()

    def tripped(self, source: str) -> str | None:
        """Why a source is not to be asked for, or None."""
        if time.monotonic() - self._looked >= self._interval_s:
            self._looked = time.monotonic()
            with self._lock:
                known = dict(self._why)
            found = read(self._folder, but=known)
            with self._lock:
                self._why = found | self._why
        return self._why.get(ALL) or self._why.get(storms.host(source))

    def settle(self) -> None:
        """Tells the other workers and the launcher what they do not know yet; raises where that cannot be written."""
        with self._lock:
            for host, why in list(self._untold.items()):
                storage.write(_path(self._folder, host), json.dumps({"host": host, "why": why}).encode())
                del self._untold[host]


def read(folder: str, but: dict[str, str] | None = None) -> dict[str, str]:
    """Why each host was given up in a run, or all of them; of those that are not known yet."""
    known = {_path(folder, host) for host in but or {}}
    found = {}
    for name in storage.sizes(folder):
        path = storage.join(folder, name)
        if path in known:
            continue
        # One that a power cut left empty says nothing, nor does one that is not ours.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            tripped = own_json.parse(storage.read(path))
            found[tripped["host"]] = tripped["why"]
    return found


def _path(folder: str, host: str) -> str:
    return storage.join(folder, f"{hashlib.sha256(host.encode()).hexdigest()[:16]}.json")


def _said(kinds: np.ndarray, host: str) -> str:
    blocked, lost = int(np.count_nonzero(kinds == storms.BLOCKED)), int(np.count_nonzero(kinds))
    if blocked >= storms.BLOCKED_SHARE * len(kinds):
        return f"{blocked} of the last {len(kinds)} videos that {host} was asked for were refused"
    return f"{lost} of the last {len(kinds)} videos that {host} was asked for did not come"

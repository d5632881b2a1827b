"""Live progress through a side channel: Beam's own counters arrive only at the end of a stage.

Each worker process appends a letter per clip to a file of its own in a temporary folder; the launcher adds up.
"""

import collections
import os
import sys
import threading
import uuid

from tqdm import tqdm

from mbt.schemas.clip import Outcome

_LETTERS = {outcome.value: chr(ord("a") + place) for place, outcome in enumerate(Outcome)}
_NAMES = {letter: name for name, letter in _LETTERS.items()}
_INTERVAL_S = 0.5


class Reporter:
    """The worker's end: `report(outcome)`; picklable, opens its file at the first report."""

    def __init__(self, folder: str | None):
        self._folder = folder
        self._file: int | None = None
        self._process = 0

    def report(self, outcome: str) -> None:
        """Counts one clip."""
        if self._folder is None:
            return
        if self._file is None or self._process != os.getpid():
            self._process = os.getpid()
            path = os.path.join(self._folder, uuid.uuid4().hex)
            self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        os.write(self._file, _LETTERS[str(outcome)].encode())

    def __getstate__(self) -> dict:
        return {"_folder": self._folder, "_file": None, "_process": 0}


class Bar:
    """The launcher's end: a bar on a terminal, a line every half minute elsewhere."""

    def __init__(self, folder: str, total: int, title: str):
        self._folder = folder
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=title,
            unit="clip",
            file=sys.stderr,
            mininterval=0.5 if terminal else 30.0,
            maxinterval=1.0 if terminal else 60.0,
            dynamic_ncols=terminal,
        )
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Bar":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._show()
        self._bar.close()

    def _follow(self) -> None:
        while not self._done.wait(_INTERVAL_S):
            self._show()

    def _show(self) -> None:
        counts = self.counts()
        lost = {name: count for name, count in sorted(counts.items()) if name != Outcome.OK and count}
        self._bar.set_postfix(lost, refresh=False)
        self._bar.update(sum(counts.values()) - self._bar.n)

    def counts(self) -> collections.Counter:
        """Clips so far, by outcome."""
        letters: collections.Counter = collections.Counter()
        for entry in os.scandir(self._folder):
            with open(entry.path, encoding="ascii") as file:
                letters.update(file.read())
        return collections.Counter({_NAMES[letter]: count for letter, count in letters.items()})

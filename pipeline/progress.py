"""Live progress through a side channel: Beam's own counters arrive only at the end of a stage.

Each worker process appends a line per clip to a file of its own in a temporary folder; the launcher adds up.
"""

import collections
import contextlib
import os
import sys
import threading
import time
import uuid
from typing import Any

from tqdm import tqdm

from mbt.schemas.clip import Outcome

_LETTERS = {outcome.value: chr(ord("a") + place) for place, outcome in enumerate(Outcome)}
_NAMES = {letter: name for name, letter in _LETTERS.items()}
_INTERVAL_S = 0.5
_BYTES_AT_A_TIME = 1 << 18


class Reporter:
    """The worker's end, for all its threads; picklable, opens its file at the first report.

    A line is a clip, `<letter>`, or bytes that came, `<count>`.
    """

    def __init__(self, folder: str | None):
        self._folder = folder
        self._open()

    def _open(self) -> None:
        self._file: int | None = None
        self._process = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def report(self, outcome: str) -> None:
        """Counts one clip."""
        self._write(_LETTERS[str(outcome)])

    def add_bytes(self, count: int) -> None:
        """Counts bytes, and reports them when some have gathered."""
        with self._lock:
            self._bytes += count
            count, self._bytes = (self._bytes, 0) if self._bytes >= _BYTES_AT_A_TIME else (0, self._bytes)
        if count:
            self._write(str(count))

    def _write(self, line: str) -> None:
        if self._folder is None:
            return
        with contextlib.suppress(OSError):  # a full disk ends the work itself, not what is shown of it
            with self._lock:
                if self._file is None or self._process != os.getpid():
                    self._process = os.getpid()
                    path = os.path.join(self._folder, uuid.uuid4().hex)
                    self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            os.write(self._file, f"{line}\n".encode())

    def __getstate__(self) -> dict:
        return {"_folder": self._folder}

    def __setstate__(self, state: dict) -> None:
        self._folder = state["_folder"]
        self._open()


class Tally:
    """Adds up what all reporters wrote, reading each line once."""

    def __init__(self, folder: str):
        self._folder = folder
        self._read: dict[str, int] = {}
        self.clips: collections.Counter = collections.Counter()
        self.bytes = 0

    def update(self) -> None:
        """Reads what is new."""
        for entry in os.scandir(self._folder):
            with open(entry.path, "rb") as file:
                file.seek(self._read.get(entry.path, 0))
                lines, _, _ = file.read().rpartition(b"\n")
            self._read[entry.path] = self._read.get(entry.path, 0) + len(lines) + bool(lines)
            for line in lines.decode().split("\n") if lines else ():
                if line in _NAMES:
                    self.clips[_NAMES[line]] += 1
                elif line.isdigit():  # or it is what a full disk took of one
                    self.bytes += int(line)


class Bar:
    """The launcher's end: a bar on a terminal, a line every half minute elsewhere."""

    def __init__(self, folder: str, total: int, title: str):
        self._tally = Tally(folder)
        self._started = time.monotonic()
        self._bar = _bar(total, title, unit="clip")
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
        self._tally.update()
        clips = self._tally.clips
        shown = {name: count for name, count in sorted(clips.items()) if name != Outcome.OK and count}
        if self._tally.bytes:
            seconds = max(_INTERVAL_S, time.monotonic() - self._started)
            shown = {"ok": clips[Outcome.OK]} | shown | {"MB/s": f"{self._tally.bytes / 1e6 / seconds:.2f}"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(sum(clips.values()) - self._bar.n)


class ByteBar:
    """A bar of bytes that the threads of this process add to."""

    def __init__(self, total: int, title: str):
        self._bar = _bar(total, title, unit="B", unit_scale=True)
        self._lock = threading.Lock()

    def __enter__(self) -> "ByteBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, count: int) -> None:
        """Adds bytes."""
        with self._lock:
            self._bar.update(count)


def _bar(total: int, title: str, **unit: Any) -> tqdm:
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=title,
        file=sys.stderr,
        mininterval=0.5 if terminal else 30.0,
        maxinterval=1.0 if terminal else 60.0,
        dynamic_ncols=terminal,
        **unit,
    )

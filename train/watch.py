"""Ends every process of a run, within a minute and with one line, when one of them dies.

Collectives on GPUs and TPUs wait for a dead peer, those on CPUs fail without saying whose fault it is, and JAX's own
heartbeats end a process by SIGABRT with a stack trace, after 100 s. So the connections over which the processes met
stay open: a process that is killed closes its own at once, and one that is stopped, or whose host or network is gone,
falls silent. Process 0 is connected to all others, and tells them.
"""

import os
import selectors
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from mbt.train.errors import LostError
from mbt.train.wire import Connection

BEAT_S = 2.0
SILENCE_S = 30.0
# A failure that another process reports is often one that this one is about to find too, and to tell in its own words.
GRACE_S = 5.0
GOODBYE_S = 2.0
LAST_WORDS_S = 10.0
MOST_TOLD = 2000  # characters of a reason


class Watch:
    """Watches the other processes of a run in a thread of its own, from `start` on."""

    def __init__(
        self,
        me: int,
        connections: dict[int, Connection],
        names: dict[int, str],
        advice: Callable[[], str],
        *,
        beat_s: float = BEAT_S,
        silence_s: float = SILENCE_S,
    ):
        """Watches nothing yet.

        Args:
          me: number of this process.
          connections: to the others, by number; all but process 0 have one to process 0 alone.
          names: of their hosts.
          advice: what is to be done when a process was lost, to end the line with.
          beat_s: between two signs of life.
          silence_s: after which a process counts as lost.
        """
        self._me = me
        self._connections = dict(connections)
        self._names = names
        self._advice = advice
        self._beat_s = beat_s
        # Beats are counted, not seconds: a job that is suspended as a whole, and goes on, has missed none.
        self._missable = max(1, round(silence_s / beat_s))
        self._missed = dict.fromkeys(connections, 0)
        self._left: set[int] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self.silence_s = silence_s

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def leave(self) -> None:
        """Tells the others that this process ends as it should."""
        self._tell(left=True)

    def fail(self, status: int, text: str) -> None:
        """Tells the others to end because this process does: with which status, and why."""
        self._ending.set()
        # What XLA says when memory runs out fills pages, and who gets too long a message takes its sender for dead.
        self._tell(end=status, text=text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]} ...")
        self._say_goodbye()

    def _tell(self, **message: object) -> None:
        for connection in list(self._connections.values()):
            connection.send(**message)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, process)
            next_beat = time.monotonic()
            while self._connections:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self._beat_s
                    self._beat()
                for key, _ in selector.select(max(0.0, next_beat - time.monotonic())):
                    if self._ending.is_set():
                        return
                    self._hear(key.data, selector)

    def _beat(self) -> None:
        self._tell(beat=True)
        for process in self._connections:
            self._missed[process] += 1
            if self._missed[process] > self._missable and process not in self._left:
                seconds = self._missable * self._beat_s
                self._lost(
                    process, f"gave no sign of life for {seconds:g} s: it is stopped, or its host or network is gone"
                )

    def _hear(self, process: int, selector: selectors.BaseSelector) -> None:
        connection = self._connections[process]
        self._missed[process] = 0
        messages = connection.receive()
        if messages is None:
            selector.unregister(connection)
            del self._connections[process]
            if process not in self._left:
                self._lost(process, "has died: killed, out of memory, or with its host")
            return
        for message in messages:
            if "left" in message:
                self._left.add(process)
            if "end" in message:
                self._pass_on(process, message)

    def _lost(self, process: int, how: str) -> NoReturn:
        text = f"process {process} on {self._names[process]} {how}; all others end"
        self._tell(end=LostError.status, text=text, lost=process)
        self._end(LostError.status, text)

    def _pass_on(self, process: int, message: dict) -> NoReturn:
        """Ends as another process says."""
        for other, connection in self._connections.items():
            if other != process:
                connection.send(**message)
        text = message["text"]
        if message.get("lost") == self._me:
            text = f"this process, {text.removeprefix('process ')}"
        elif "lost" not in message:
            time.sleep(GRACE_S)
        self._end(message["end"], text)

    def _end(self, status: int, text: str) -> NoReturn:
        """Not by an exception: the main thread may wait for the dead in native code, and JAX would at exit."""
        # A file system that is gone with its host, or a full pipe, must not keep this process.
        threading.Timer(LAST_WORDS_S, os._exit, (status,)).start()
        try:
            # The line begins a new one, since a progress bar may stand in this one.
            os.write(sys.stderr.fileno(), f"\nmbt-train: {text}".encode())
            os.write(sys.stderr.fileno(), (f"; {self._advice()}\n" if status == LostError.status else "\n").encode())
            sys.stdout.flush()
            self._say_goodbye()
        finally:
            os._exit(status)

    def _say_goodbye(self) -> None:
        """Lets what was said arrive: a process that ends with messages unread resets its connections."""
        deadline = time.monotonic() + GOODBYE_S
        with selectors.DefaultSelector() as selector:
            for process, connection in self._connections.items():
                connection.finish()
                selector.register(connection, selectors.EVENT_READ, process)
            while selector.get_map() and time.monotonic() < deadline:
                for key, _ in selector.select(0.1):
                    if key.fileobj.receive() is None:  # type: ignore[union-attr]
                        selector.unregister(key.fileobj)

"""What bounds one exchange with servers: a deadline for all of it, and the addresses it may go to.

A client's timeouts are for one read each, and a server that sends a byte now and then never meets them. So at the
deadline every connection of the exchange is shut down, and whatever waits for it goes on.
"""

import contextlib
import contextvars
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from mbt.pipeline import hosts as hosts_lib

# (family, type, protocol, name, address), as `socket.getaddrinfo` returns them.
Resolver = Callable[..., list[tuple[Any, ...]]]

_LONGEST_S = 1e8  # that timers take, and more than three years
_current: contextvars.ContextVar["Bounds"] = contextvars.ContextVar("bounds")


class Bounds:
    """The bounds of one exchange; a context manager.

    Attributes:
      reuses: the last request went over a connection that was there before.
      surplus: a server sent more than it had announced.
    """

    def __init__(self, seconds: float, hosts: hosts_lib.Hosts, resolve: Resolver = socket.getaddrinfo):
        """Makes the bounds.

        Args:
          seconds: until the deadline, from when the context is entered.
          hosts: where requests may go.
          resolve: looks names up.
        """
        self.seconds = min(seconds, _LONGEST_S)
        self.reuses = False
        self.surplus = False
        self.hosts = hosts
        self._resolve = resolve
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(self.seconds, self._expire)
        self._timer.daemon = True
        self._ends_at = 0.0

    def __enter__(self) -> "Bounds":
        self._ends_at = time.monotonic() + self.seconds
        self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        with self._lock:
            while self._sockets:
                self._sockets.pop().close()

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed; whatever ends from then on, we may have ended."""
        return time.monotonic() >= self._ends_at

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Makes them those of the connections that this thread uses."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def remaining_s(self, at_most: float | None = None) -> float:
        """Seconds that are left.

        Raises:
          TimeoutError: none are.
        """
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the deadline has passed")
        return left_s if at_most is None else min(left_s, at_most)

    def watch(self, connection: socket.socket) -> None:
        """Has a connection shut down at the deadline, whatever wraps it until then."""
        duplicate = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._sockets.append(duplicate)
            if self.expired:
                _shut_down(duplicate)

    def addresses(self, host: str, port: int, *, named: bool = False) -> list[tuple[Any, ...]]:
        """Looks a name up, once: who connects uses what is returned.

        Args:
          host: a name or an address.
          port: to connect to.
          named: by the command line or the environment, as proxies are.

        Raises:
          OSError: it has no address, or the deadline has passed.
          BadHostError: it cannot be a host.
          PrivateHostError: it is in a private network.
        """
        try:
            found = within(self.remaining_s(), lambda: self._resolve(host, port, type=socket.SOCK_STREAM))
        except (UnicodeError, ValueError) as error:
            raise hosts_lib.BadHostError(type(error).__name__) from error
        if not found:
            raise OSError("the name has no address")
        if not named:
            self.hosts.check_addresses(host, (str(entry[4][0]) for entry in found))
        return found

    def _expire(self) -> None:
        with self._lock:
            for duplicate in self._sockets:
                _shut_down(duplicate)


def current() -> Bounds:
    """The bounds that this thread's connections are in."""
    return _current.get()


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """Does what knows no timeout itself, and leaves it behind when time is up.

    Raises:
      TimeoutError: it is; or whatever the call raises.
    """
    ended: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            ended.put((True, call()))
        except Exception as error:
            ended.put((False, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        good, value = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"not done after {seconds:.0f} s") from None
    if not good:
        raise value
    return value


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)

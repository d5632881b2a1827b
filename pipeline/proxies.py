"""Proxies in rotation: one that was refused rests, the others go on."""

import itertools
import threading
import time
from urllib.parse import urlsplit

from mbt.pipeline import secret

REST_S = 900.0  # a guest session that YouTube limits is free again within the hour
_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


class ProxiesError(ValueError):
    """The file of proxies cannot be used."""


class Proxies:
    """Hands out one proxy after the other; thread-safe."""

    def __init__(self, urls: list[str]):
        self._urls = urls
        self._turn = itertools.cycle(range(len(urls)))
        self._rests_until = [0.0] * len(urls)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._urls)

    def next(self) -> str | None:
        """The next one that is not resting; None where no proxy is used.

        Raises:
          AllRestingError: all of them are.
        """
        if not self._urls:
            return None
        with self._lock:
            for _ in self._urls:
                place = next(self._turn)
                if time.monotonic() >= self._rests_until[place]:
                    return self._urls[place]
        raise AllRestingError(f"all {len(self._urls)} proxies were refused and are resting")

    def rest(self, url: str | None, seconds: float | None = None) -> None:
        """Leaves a proxy alone for a while."""
        if url is not None:
            with self._lock:
                self._rests_until[self._urls.index(url)] = time.monotonic() + max(REST_S, seconds or 0.0)


class AllRestingError(RuntimeError):
    """There is no proxy left to go on with now."""


def read(path: str | None) -> Proxies:
    """Reads a file with one proxy URL a line; `#` begins a comment. Its content stays out of every message.

    Raises:
      ProxiesError: no such file, or a line is not a proxy's URL.
    """
    if path is None:
        return Proxies([])
    try:
        lines = secret.read(path).splitlines()
    except secret.SecretError as error:
        raise ProxiesError(f"--proxies={error}") from None
    urls = []
    for number, line in enumerate(lines, 1):
        if url := line.partition("#")[0].strip():
            if not _is_proxy(url):
                raise ProxiesError(
                    f"--proxies={path}, line {number}: not a proxy; a line is like http://user:password@host:8080"
                )
            urls.append(url)
    if not urls:
        raise ProxiesError(f"--proxies={path}: names no proxy")
    return Proxies(urls)


def _is_proxy(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port is not None
    except ValueError:
        return False

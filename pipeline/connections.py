"""Connections of `requests` that keep the bounds of their exchange (`bounds.py`)."""

import contextlib
import http.client
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import requests
import requests.adapters
import socks
import urllib3
from requests.utils import select_proxy
from urllib3.contrib.socks import SOCKSConnection

from mbt.pipeline import bounds as bounds_lib
from mbt.pipeline.hosts import BadHostError

MAX_HEAD_BYTES = 1 << 18  # of all that comes before a body, or after it; browsers admit as much
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_INTERIM = range(102, 200)  # 100 is skipped by `http.client`, 101 is an answer


class HeadTooLongError(Exception):
    """A server does not come to its point."""


class _Lines:
    """The lines before a body, or after it, up to a limit."""

    def __init__(self, reader: Any, *, may_end: bool):
        self.reader = reader
        self._may_end = may_end
        self._left = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        line = self.reader.readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise HeadTooLongError
        if not line and not self._may_end:  # else it would count as whole
            raise http.client.RemoteDisconnected("in the middle of a head")
        return line

    def close(self) -> None:
        self.reader.close()


class _Response(http.client.HTTPResponse):
    """One whose head and chunks are bounded, and that notices what follows after its end."""

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any):
        super().__init__(sock, *arguments, **options)
        self._socket = sock
        self._bounds = bounds_lib.current()

    def begin(self) -> None:
        """Reads the head."""
        with self._few_lines(may_end=False):
            super().begin()

    def _read_and_discard_trailer(self) -> None:
        with self._few_lines(may_end=True):  # as http.client has it
            super()._read_and_discard_trailer()

    @contextlib.contextmanager
    def _few_lines(self, *, may_end: bool) -> Iterator[None]:
        lines = self.fp = _Lines(self.fp, may_end=may_end)
        try:
            yield
        finally:
            if self.fp is lines:
                self.fp = lines.reader

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()
        while status in _INTERIM:
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()
        return version, status, reason

    def _read_next_chunk_size(self) -> int:
        line = self.fp.readline(http.client._MAXLINE + 1)
        if not (size := _CHUNK_SIZE.fullmatch(line.partition(b";")[0].strip())):
            self._close_conn()
            raise ValueError("no size of a chunk")  # it becomes an IncompleteRead
        return int(size[0], 16)

    def _close_conn(self) -> None:
        if self.fp is not None and self.length == 0 and self._method != "HEAD" and self._more():
            self._bounds.surplus = True
        super()._close_conn()

    def _more(self) -> bool:
        """Whether the server goes on after the length that it announced."""
        timeout_s = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            return bool(self.fp.peek(1))
        except OSError:  # TLS says so of nothing
            return False
        finally:
            self._socket.settimeout(timeout_s)


class _Bounded:
    """Of a connection: it goes where it was judged to go, and ends with its exchange."""

    response_class = _Response
    sock: Any
    _is_new = False

    def request(self, *arguments: Any, **options: Any) -> None:
        """Sends a request, over a connection that may be another exchange's."""
        bounds = bounds_lib.current()
        bounds.reuses = self.sock is not None and not self._is_new
        if bounds.reuses:
            bounds.watch(self.sock)
        super().request(*arguments, **options)  # type: ignore[misc]
        self._is_new = False

    def _new_conn(self) -> socket.socket:
        self._is_new = True
        try:
            return self._dialled(bounds_lib.current())
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "not connected in time") from error
        except OSError as error:
            raise urllib3.exceptions.NewConnectionError(self, "cannot be connected to") from error  # type: ignore[arg-type]

    def _dialled(self, bounds: bounds_lib.Bounds) -> socket.socket:
        raise NotImplementedError


class _Direct(_Bounded):
    """To the host itself, or to an HTTP proxy."""

    _dns_host: str
    port: int
    proxy: Any
    timeout: float | None
    socket_options: Any

    def _dialled(self, bounds: bounds_lib.Bounds) -> socket.socket:
        def dial(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
            made = socket.socket(family, kind, protocol)
            return _connected(made, address, bounds, self.timeout, self.socket_options)

        return _first(bounds.addresses(self._dns_host, self.port, named=self.proxy is not None), dial)


class _ThroughSocks(_Bounded):
    """Through a SOCKS proxy, which looks the name up, or else gets the address that was judged."""

    host: str
    port: int
    timeout: float | None
    socket_options: Any
    _socks_options: Any

    def _dialled(self, bounds: bounds_lib.Bounds) -> socket.socket:
        options = self._socks_options
        version, rdns = options["socks_version"], options["rdns"]
        host = self.host if rdns else self._judged(bounds, version)

        def dial(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
            made = socks.socksocket(family, kind, protocol)
            made.set_proxy(version, address[0], address[1], rdns, options["username"], options["password"])
            return _connected(made, (host, self.port), bounds, self.timeout, self.socket_options)

        return _first(bounds.addresses(options["proxy_host"], options["proxy_port"] or 1080, named=True), dial)

    def _judged(self, bounds: bounds_lib.Bounds, version: int) -> str:
        found = bounds.addresses(self.host, self.port)
        four = [entry for entry in found if entry[0] == socket.AF_INET]
        if version == socks.PROXY_TYPE_SOCKS4 and not four:
            raise OSError("SOCKS 4 knows no IPv6")
        return str((four or found)[0][4][0])


def _first(found: list[tuple[Any, ...]], dial: Callable[..., socket.socket]) -> socket.socket:
    """A connection to the first address that takes one."""
    for place, (family, kind, protocol, _, address) in enumerate(found):
        try:
            return dial(family, kind, protocol, address)
        except OSError:
            if place == len(found) - 1:
                raise
    raise AssertionError("unreachable")


def _connected(
    made: socket.socket, address: Any, bounds: bounds_lib.Bounds, timeout_s: float | None, options: Any
) -> socket.socket:
    try:
        for option in options or ():
            made.setsockopt(*option)
        made.settimeout(bounds.remaining_s(timeout_s))
        bounds.watch(made)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


class _Http(_Direct, urllib3.connection.HTTPConnection):
    pass


class _Https(_Direct, urllib3.connection.HTTPSConnection):
    pass


class _SocksHttp(_ThroughSocks, SOCKSConnection):
    pass


class _SocksHttps(_ThroughSocks, SOCKSConnection, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


class _SocksHttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _SocksHttp


class _SocksHttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SocksHttps


_POOLS = {"http": _HttpPool, "https": _HttpsPool}
_SOCKS_POOLS = {"http": _SocksHttpPool, "https": _SocksHttpsPool}


class Adapter(requests.adapters.HTTPAdapter):
    """Makes such connections, and judges names that a proxy looks up."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Makes the pools of direct connections."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Makes the pools of a proxy's connections."""
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _SOCKS_POOLS if proxy.lower().startswith("socks") else _POOLS
        return manager

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Sends a request."""
        url = urllib3.util.parse_url(request.url or "")
        if not url.host:
            raise BadHostError("no host")
        if select_proxy(request.url, options.get("proxies")):
            bounds_lib.current().hosts.check_name(url.host)
        return super().send(request, *arguments, **options)

"""Connections of `requests` that keep the bounds of their exchange (`bounds.py`)."""

import socket
from collections.abc import Callable
from typing import Any

import requests
import requests.adapters
import socks
import urllib3
from requests.utils import select_proxy
from urllib3.contrib.socks import SOCKSConnection, SOCKSProxyManager

from mbt.pipeline import bounds as bounds_lib
from mbt.pipeline import http_response
from mbt.pipeline.hosts import BadHostError


class _Bounded:
    """Of a connection: it goes where it was judged to go, and ends with its exchange."""

    response_class: Any = http_response.Response
    sock: Any
    host: str
    _is_new = False
    _judged: tuple[str, ...] = ()  # what the name stands for; nothing where a proxy looks it up

    def request(self, *arguments: Any, **options: Any) -> None:
        """Sends a request, over a connection that may be another exchange's."""
        bounds = bounds_lib.current()
        bounds.reuses = self.sock is not None and not self._is_new
        if bounds.reuses:  # another exchange may have had another rule
            bounds.hosts.check_addresses(self.host, self._judged)
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

        is_proxy = self.proxy is not None
        found = bounds.addresses(self._dns_host, self.port, named=is_proxy)
        self._judged = () if is_proxy else _texts(found)
        return _first(found, dial)


class _ThroughSocks(_Bounded):
    """Through a SOCKS proxy, which looks the name up, or else gets the address that was judged."""

    port: int
    timeout: float | None
    socket_options: Any
    _socks_options: Any

    def _dialled(self, bounds: bounds_lib.Bounds) -> socket.socket:
        options = self._socks_options
        version, rdns = options["socks_version"], options["rdns"]
        host = self.host if rdns else self._looked_up(bounds, version)

        def dial(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
            made = socks.socksocket(family, kind, protocol)
            made.set_proxy(version, address[0], address[1], rdns, options["username"], options["password"])
            return _connected(made, (host, self.port), bounds, self.timeout, self.socket_options)

        return _first(bounds.addresses(options["proxy_host"], options["proxy_port"] or 1080, named=True), dial)

    def _looked_up(self, bounds: bounds_lib.Bounds, version: int) -> str:
        found = bounds.addresses(self.host, self.port)
        self._judged = _texts(found)
        four = [entry for entry in found if entry[0] == socket.AF_INET]
        if version == socks.PROXY_TYPE_SOCKS4 and not four:
            raise OSError("SOCKS 4 knows no IPv6")
        return str((four or found)[0][4][0])


def _texts(found: list[tuple[Any, ...]]) -> tuple[str, ...]:
    return tuple(str(entry[4][0]) for entry in found)


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
        if not proxy.lower().startswith("socks"):
            manager = super().proxy_manager_for(proxy, **options)
            manager.pool_classes_by_scheme = _POOLS
        elif (manager := self.proxy_manager.get(proxy)) is None:
            # Not by the name in `requests`, in whose place yt-dlp puts a manager of its own.
            username, password = requests.utils.get_auth_from_url(proxy)
            manager = SOCKSProxyManager(proxy, username=username, password=password, **options)
            manager.pool_classes_by_scheme = _SOCKS_POOLS
            self.proxy_manager[proxy] = manager
        return manager

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Sends a request."""
        url = urllib3.util.parse_url(request.url or "")
        if not url.host:
            raise BadHostError("no host")
        if select_proxy(request.url or "", options.get("proxies")):
            bounds_lib.current().hosts.check_name(url.host)
        return super().send(request, *arguments, **options)

"""Plain http(s): one URL to one local file, resumed by ranges, inside limits of size and time, from no other place."""

import dataclasses
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from mbt.pipeline import disk
from mbt.pipeline.outcomes import Failure, FetchError, classify_status
from mbt.schemas.clip import Outcome

MAX_BYTES = 2 << 30
CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
TIME_LIMIT_S = 900.0
SLOWEST_BYTES_PER_SECOND = 1000
_PATIENCE_S = 30.0  # before a server counts as too slow
MAX_REDIRECTS = 10
RESUMES = 3
_CHUNK_BYTES = 1 << 16
_TRIES = 3
_local = threading.local()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a server's time and bytes one download may take."""

    max_bytes: int = MAX_BYTES
    time_limit_s: float = TIME_LIMIT_S
    read_timeout_s: float = READ_TIMEOUT_S
    bytes_per_second: int | None = None


class _CutError(Exception):
    """The connection ended before the file did."""


def download(
    url: str, path: str, limits: Limits, proxy: str | None = None, on_bytes: Callable[[int], None] = lambda count: None
) -> bool:
    """Fetches a URL into a new file; returns whether it is known to be whole.

    A connection that is cut is taken up again where it broke, if the server can (RFC 9110, sections 13.1.5 and 14).

    Args:
      url: http or https.
      path: of the file to make; nothing is left there on failure.
      limits: of size, time and speed.
      proxy: URL of a proxy, or None for the environment's.
      on_bytes: called with the size of every piece that came.

    Raises:
      FetchError: with what became of it.
    """
    transfer = _Transfer(url, path, limits, proxy, on_bytes)
    try:
        return transfer.run()
    except requests.exceptions.RequestException as error:
        raise FetchError(_failure(error)) from error
    except (urllib3.exceptions.HTTPError, _CutError) as error:
        raise FetchError(_transient(*_reason(error))) from error
    except FetchError:
        raise
    finally:
        transfer.close()


def head(url: str, proxy: str | None = None) -> Failure | None:
    """Asks whether a URL could be downloaded now; None where it could, else what became of it."""
    proxies = {"http": proxy, "https": proxy} if proxy else None
    try:
        with _get(url, {}, (CONNECT_TIMEOUT_S, READ_TIMEOUT_S), proxies, method="HEAD") as response:
            status = response.status_code
        if status in (405, 501):  # a server that knows no HEAD
            with _get(url, {"Range": "bytes=0-0"}, (CONNECT_TIMEOUT_S, READ_TIMEOUT_S), proxies) as response:
                status = response.status_code
        return None if status in (200, 206) else classify_status(status, response.headers)
    except FetchError as error:
        return error.failure
    except requests.exceptions.RequestException as error:
        return _failure(error)


class _Transfer:
    """One download: what has come so far, and how the rest is asked for."""

    def __init__(self, url: str, path: str, limits: Limits, proxy: str | None, on_bytes: Callable[[int], None]):
        self._url = url
        self._path = path
        self._limits = limits
        self._proxies = {"http": proxy, "https": proxy} if proxy else None
        self._on_bytes = on_bytes
        self._started = time.monotonic()
        self._size = 0
        self._total: int | None = None
        self._validator = ""
        self._done = False
        self._sure = False

    def run(self) -> bool:
        """All of it."""
        with disk.naming(self._path), open(self._path, "wb", buffering=0) as file:
            for resumes in range(RESUMES + 1):
                try:
                    while not self._receive(file):
                        self._check_limits()  # a server may send less than it was asked for
                    break
                except (_CutError, urllib3.exceptions.HTTPError, requests.exceptions.ConnectionError) as error:
                    stalled = isinstance(error, urllib3.exceptions.TimeoutError | requests.exceptions.Timeout)
                    if stalled or resumes == RESUMES or not self._size or not self._validator:
                        raise
        if not self._size:
            raise FetchError(_transient("empty", "the server sent 0 bytes"))
        disk.check_size(self._path, self._size)
        self._done = True
        return self._sure

    def close(self) -> None:
        """Leaves nothing that is not whole."""
        if not self._done and os.path.exists(self._path):
            os.unlink(self._path)

    def _receive(self, file) -> bool:
        """One request; returns whether the file is complete."""
        headers = {"Accept-Encoding": "identity"}
        if self._size:
            headers |= {"Range": f"bytes={self._size}-", "If-Range": self._validator}
        with _get(self._url, headers, (CONNECT_TIMEOUT_S, self._limits.read_timeout_s), self._proxies) as response:
            self._begin(response, file)
            before = self._size
            while piece := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                disk.write_all(file, piece)
                self._size += len(piece)
                self._on_bytes(len(piece))
                self._check_limits()
        self._sure = self._total is not None or response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        whole = self._total is None or self._size >= self._total
        if not whole and (response.status_code == 200 or self._size == before):
            raise _CutError(f"{self._size} of {self._total} bytes came")
        return whole

    def _begin(self, response: requests.Response, file) -> None:
        """Checks the status, and where the bytes that follow belong."""
        if response.status_code == 206:
            first, total = _content_range(response.headers.get("Content-Range", ""))
            if first != self._size or total is None:
                raise FetchError(_transient("bad_range", f"asked for byte {self._size}, the server sent from {first}"))
            if self._size and (total != self._total or self._tag(response) != self._validator):
                raise FetchError(_transient("changed", "the file changed while it was being downloaded"))
            self._total = total
        elif response.status_code == 200:
            file.truncate(0)
            file.seek(0)
            self._size = 0
            length = response.headers.get("Content-Length", "")
            self._total = int(length) if length.isascii() and length.isdigit() else None
        else:
            raise FetchError(classify_status(response.status_code, response.headers))
        if self._total is not None and self._total > self._limits.max_bytes:
            raise FetchError(self._too_large(f"{self._total} bytes"))
        self._validator = self._tag(response)

    def _tag(self, response: requests.Response) -> str:
        """What tells one version of a file from another: a strong ETag, or a date (RFC 9110, section 8.8)."""
        strong = response.headers.get("ETag", "")
        return strong if strong.startswith('"') else response.headers.get("Last-Modified", "")

    def _check_limits(self) -> None:
        seconds = time.monotonic() - self._started
        if self._size > self._limits.max_bytes:
            raise FetchError(self._too_large("it does not end"))
        if seconds > self._limits.time_limit_s:
            raise FetchError(_transient("too_slow", f"not done after {self._limits.time_limit_s:.0f} s"))
        slowest = min(SLOWEST_BYTES_PER_SECOND, (self._limits.bytes_per_second or SLOWEST_BYTES_PER_SECOND) / 4)
        if seconds > _PATIENCE_S and self._size < slowest * seconds:
            raise FetchError(_transient("too_slow", f"{self._size} bytes in {seconds:.0f} s"))
        if self._limits.bytes_per_second:
            time.sleep(max(0.0, self._size / self._limits.bytes_per_second - seconds))

    def _too_large(self, what: str) -> Failure:
        detail = f"{what}, over the limit of {self._limits.max_bytes} bytes"
        return Failure(outcome=Outcome.UNUSABLE, reason="too_large", detail=detail, tries=1)


def _get(
    url: str, headers: dict, timeout: tuple[float, float], proxies: dict | None, *, method: str = "GET"
) -> requests.Response:
    """A request that follows redirects, but not into this machine or its network."""
    first = url
    for _ in range(MAX_REDIRECTS):
        response = _session().request(
            method, url, headers=headers, timeout=timeout, proxies=proxies, stream=True, allow_redirects=False
        )
        if not response.is_redirect:
            return response
        response.close()
        url = urljoin(url, response.headers["Location"])
        _check_redirect(first, url, proxies)
    raise FetchError(_transient("redirect_loop", f"over {MAX_REDIRECTS} redirects"))


def _session() -> requests.Session:
    """Connections of this thread: sessions are not made for several."""
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    return _local.session


def _check_redirect(first: str, url: str, proxies: dict | None) -> None:
    """A public server may not send us to addresses that only we can reach, such as a cloud's metadata service."""
    one, other = urlsplit(first), urlsplit(url)
    if other.scheme not in ("http", "https") or not other.hostname:
        raise FetchError(_bad_redirect("to something that is neither http nor https"))
    if one.netloc == other.netloc or proxies:
        return
    if not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in _addresses(other.hostname)):
        raise FetchError(_bad_redirect("into a private network"))


def _addresses(host: str) -> set[str]:
    try:
        return {str(ipaddress.ip_address(host))}
    except ValueError:
        pass
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, ValueError) as error:
        raise FetchError(_transient("connection", "a redirect leads to a name without an address")) from error


def _bad_redirect(where: str) -> Failure:
    # A network's login page does so too.
    return Failure(outcome=Outcome.TRANSIENT, reason="bad_redirect", detail=f"the server redirects {where}", tries=1)


def _content_range(text: str) -> tuple[int, int | None]:
    """First byte and total size, from `bytes 0-499/1234`."""
    try:
        unit, _, rest = text.partition(" ")
        span, _, total = rest.partition("/")
        if unit == "bytes":
            return int(span.partition("-")[0]), None if total == "*" else int(total)
    except ValueError:
        pass
    raise FetchError(_transient("bad_range", "the server sent a part and did not say which"))


def _failure(error: requests.exceptions.RequestException) -> Failure:
    kinds = requests.exceptions
    # Types only: an exception's text may hold the URL's secrets.
    for kind, reason in (
        (kinds.Timeout, "timeout"),
        (kinds.SSLError, "tls"),
        (kinds.ProxyError, "proxy"),
        (kinds.ChunkedEncodingError, "cut_short"),
        (kinds.ConnectionError, "connection"),
    ):
        if isinstance(error, kind):
            return _transient(reason, type(error).__name__)
    if isinstance(error, kinds.InvalidURL | kinds.MissingSchema) and not isinstance(error, kinds.InvalidProxyURL):
        return Failure(outcome=Outcome.INVALID, reason="bad_url", detail=type(error).__name__, tries=1)
    return _transient("request_failed", type(error).__name__)


def _reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "timeout", type(error).__name__
    return "cut_short", str(error) if isinstance(error, _CutError) else type(error).__name__


def _transient(reason: str, detail: str) -> Failure:
    return Failure(outcome=Outcome.TRANSIENT, reason=reason, detail=detail, tries=_TRIES)

"""One exchange with http(s) servers: requests, redirects and answers inside bounds; all that fails has an outcome.

It takes no names and passwords from `~/.netrc`, and its cookies end with it: what one row's server says is no concern
of another's. Connections are kept for the thread's next exchange.
"""

import contextlib
import threading
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from mbt.pipeline.bounds import Bounds
from mbt.pipeline.connections import Adapter
from mbt.pipeline.hosts import FLAG, BadHostError, PrivateHostError
from mbt.pipeline.http_response import MAX_HEAD_BYTES, HeadTooLongError
from mbt.pipeline.outcomes import ONCE, THRICE, Failure, FetchError
from mbt.schemas.clip import Outcome

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
MAX_REDIRECTS = 10
PRIVATE_HOST = "private_host"  # the reason for a row that is not asked for
TOOL = f"requests {requests.__version__}"
_CHUNK_BYTES = 1 << 16
_MAX_COOKIE_BYTES = 1 << 14
_PLAIN = ("", "identity", "aws-chunked")  # the last one is how S3's clients uploaded a file, not how it comes
_ENCODINGS = frozenset(urllib3.response.HTTPResponse.CONTENT_DECODERS)
_local = threading.local()


class Exchange:
    """Asks for a URL, and for where its server redirects to."""

    def __init__(self, bounds: Bounds, proxy: str | None = None, read_timeout_s: float = READ_TIMEOUT_S):
        """Begins an exchange.

        Args:
          bounds: that were entered.
          proxy: URL of a proxy, or None for the environment's.
          read_timeout_s: for each read.
        """
        self.bounds = bounds
        self._proxies = {"http": proxy, "https": proxy} if proxy else {}
        self._timeout = (CONNECT_TIMEOUT_S, read_timeout_s)
        self._session = _Session()

    def open(self, method: str, url: str, headers: dict[str, str], parameters: dict | None = None) -> "Answer":
        """The first answer that is no redirect.

        Raises:
          FetchError: with what became of it.
        """
        with self.bounds.current():
            try:
                response = self._sent(method, url, headers, parameters)
            except _RefusedUrlError as error:
                raise FetchError(_invalid(error)) from error
            self.bounds.hosts = self.bounds.hosts.after(response.request.url)
            for _ in range(MAX_REDIRECTS):
                if not response.is_redirect:
                    return Answer(response, self.bounds)
                response.close()
                url = _target(response, url)
                try:
                    response = self._sent(method, url, headers, None)
                except _RefusedUrlError as error:
                    raise FetchError(_bad_redirect(f"to {error.what}")) from error
            response.close()
        raise FetchError(transient("redirect_loop", f"over {MAX_REDIRECTS} redirects"))

    def _sent(self, method: str, url: str, headers: dict[str, str], parameters: dict | None) -> requests.Response:
        """The answer to one request."""
        try:
            request = self._session.prepare_request(requests.Request(method, url, headers=headers, params=parameters))
            settings = self._session.merge_environment_settings(
                request.url or "", dict(self._proxies), True, None, None
            )
        except Exception as error:  # requests lets through whatever its parts raise
            raise _RefusedUrlError("bad_url", "what is no URL", type(error).__name__) from error
        try:
            response = self._answered(request, settings)
        except PrivateHostError as error:
            detail = f"the host is in a private network: {FLAG} admits those"
            raise _RefusedUrlError(PRIVATE_HOST, "a private network", detail) from error
        except BadHostError as error:
            raise _RefusedUrlError("bad_url", "what is no host", str(error)) from error
        except Exception as error:
            raise FetchError(failure_of(error, self.bounds)) from error
        if self.bounds.expired:
            response.close()
            raise FetchError(too_slow(self.bounds))
        if sum(len(cookie.value or "") for cookie in self._session.cookies) > _MAX_COOKIE_BYTES:
            self._session.cookies.clear()
        return response

    def _answered(self, request: requests.PreparedRequest, settings: Any) -> requests.Response:
        """The answer; a connection that was kept may have ended meanwhile, which says nothing of the server."""
        self.bounds.reuses = False
        try:
            return self._session.send(request, timeout=self._timeout, allow_redirects=False, **settings)
        except requests.exceptions.ConnectionError:
            if not self.bounds.reuses or self.bounds.expired:
                raise
        _adapter().close()
        return self._session.send(request, timeout=self._timeout, allow_redirects=False, **settings)


class Answer:
    """An answer, of which the body is still to be read; a context manager.

    Attributes:
      status: its HTTP status.
      headers: of it.
      encoding: of its content, although none was asked for; "" where it comes as it is.
    """

    def __init__(self, response: requests.Response, bounds: Bounds):
        self.status = response.status_code
        self.headers = response.headers
        encodings = [word.strip() for word in self.headers.get("Content-Encoding", "").lower().split(",")]
        self.encoding = ", ".join(word for word in encodings if word not in _PLAIN)
        self._response = response
        self._response.raw.headers["Content-Encoding"] = self.encoding  # for its decoder
        self._bounds = bounds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._bounds.current():
            self._response.close()
        if self._bounds.surplus:  # what lies in the connection would be taken for the next answer
            _adapter().close()

    @property
    def is_chunked(self) -> bool:
        """Whether the body says where it ends."""
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def check_encoding(self) -> None:
        """Refuses what `read` could not decode.

        Raises:
          FetchError: with the cause.
        """
        if unknown := set(self.encoding.split(", ")) - _ENCODINGS - {""}:
            raise FetchError(bad_encoding(f"{sorted(unknown)[0][:40]!a}, which nobody asked for and we do not know"))
        transfer = self.headers.get("Transfer-Encoding", "").lower()
        if transfer not in ("", "chunked", "identity"):
            raise FetchError(bad_encoding(f"{transfer[:40]!a}, in which nothing is sent"))

    def read(self) -> bytes:
        """The next piece of the body, decoded; empty at its end.

        Raises:
          FetchError: with what became of it.
        """
        with self._bounds.current():
            try:
                piece = self._response.raw.read1(_CHUNK_BYTES, decode_content=bool(self.encoding))
            except Exception as error:
                raise FetchError(failure_of(error, self._bounds)) from error
        if self._bounds.expired:  # its end may be ours
            raise FetchError(too_slow(self._bounds))
        return piece or b""


class _RefusedUrlError(Exception):
    """No request is made for a URL: why, in one word, and in words for what redirects there and for what names it."""

    def __init__(self, reason: str, what: str, detail: str):
        super().__init__(detail)
        self.reason = reason
        self.what = what


class _Session(requests.Session):
    """Cookies of one exchange, over connections of this thread: those are not made for several."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = _no_auth  # else ~/.netrc is read
        self.mount("http://", _adapter())
        self.mount("https://", _adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere: else requests prepares the next request even where it is not to follow, and reads this body."""


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _adapter() -> Adapter:
    if not hasattr(_local, "adapter"):
        _local.adapter = Adapter()
    return _local.adapter


def _target(response: requests.Response, url: str) -> str:
    """Where a redirect leads to."""
    location = response.headers["Location"]
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode()  # most send UTF-8
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
    except ValueError as error:
        raise FetchError(_bad_redirect("to what is no URL")) from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise FetchError(_bad_redirect("to something that is neither http nor https"))
    return target


def _invalid(error: _RefusedUrlError) -> Failure:
    return Failure(outcome=Outcome.INVALID, reason=error.reason, detail=str(error), tries=ONCE)


def _bad_redirect(where: str) -> Failure:
    return transient("bad_redirect", f"the server redirects {where}", ONCE)  # a network's login page does so too


def transient(reason: str, detail: str, tries: int = THRICE) -> Failure:
    """A failure that may pass."""
    return Failure(outcome=Outcome.TRANSIENT, reason=reason, detail=detail, tries=tries)


def too_slow(bounds: Bounds) -> Failure:
    """The deadline has passed."""
    return transient("too_slow", f"not done after {bounds.seconds:.0f} s")


def bad_encoding(what: str) -> Failure:
    """A body came in another form than it was asked for in."""
    return transient("bad_encoding", f"the server encodes as {what}", ONCE)


def failure_of(error: Exception, bounds: Bounds) -> Failure:
    """What an error of the client says; by its type only, for its text may hold the URL's secrets."""
    if bounds.expired:
        return too_slow(bounds)
    if isinstance(error, HeadTooLongError):
        return transient("bad_answer", f"the headers are over {MAX_HEAD_BYTES} bytes")
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return transient(reason, type(error).__name__)
    return transient("request_failed", type(error).__name__)


_REASONS: tuple[tuple[Any, str], ...] = (
    ((requests.exceptions.Timeout, urllib3.exceptions.TimeoutError, TimeoutError), "timeout"),
    ((requests.exceptions.SSLError, urllib3.exceptions.SSLError), "tls"),
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), "proxy"),
    ((requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError), "bad_encoding"),
    ((requests.exceptions.ChunkedEncodingError, urllib3.exceptions.ProtocolError), "cut_short"),
    (requests.exceptions.ConnectionError, "connection"),
    (urllib3.exceptions.HTTPError, "cut_short"),
)

"""The behaviours: what is said to GET and HEAD, and what may become of it.

`expect` names the outcomes that are right: "ok" where all bytes came, and the reason besides where only that one is
right. Whatever is not "ok" for sure must not settle a clip: `judge` in the campaign looks at that for all of them.
"""

import dataclasses
from collections.abc import Callable

from odd_http.server import CLOSE, KEEP, Request, Steps

BODY = bytes(range(256)) * 40  # 10,240 bytes
LENGTH = len(BODY)
TRANSIENT = frozenset({"transient"})
OK = frozenset({"ok"})
EITHER = OK | TRANSIENT
SLOW = frozenset({"transient/too_slow"})


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """One way to answer.

    Attributes:
      name: unique.
      say: the steps for a request.
      get: outcomes, or outcomes with reasons, that a download may have.
      head: those that a question may have.
      tls: whose certificate the server has, or "" for plain http.
      greeting: the server says it to whoever connects, before it is asked, and as this: "https", or a kind of proxy.
    """

    name: str
    say: Callable[[Request], Steps]
    get: frozenset[str]
    head: frozenset[str]
    tls: str = ""
    greeting: str = ""


def answer(status: int | str = 200, body: bytes = BODY, length: int | str | None = -1, **headers: str) -> bytes:
    """A whole answer; `length` of -1 is that of the body, of None is not said."""
    if length is not None:
        headers["Content-Length"] = str(len(body) if length == -1 else length)
    lines = [f"HTTP/1.1 {status} x", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def head_only(request: Request, whole: bytes) -> bytes:
    """An answer as this method wants it."""
    return whole if request.method == "GET" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def fixed(*steps: bytes | float | str | list) -> Callable[[Request], Steps]:
    """Says the same to everybody, and then nothing."""
    return lambda request: steps


def whole(data: bytes, end: str = CLOSE) -> Callable[[Request], Steps]:
    """Says an answer, to HEAD without its body."""
    return lambda request: (head_only(request, data), end)


def good(request: Request, tag: str = '"a"') -> bytes:
    """What a well server says, ranges included."""
    wanted = request.headers.get("range", "")
    if not wanted:
        return head_only(request, answer(ETag=tag, Accept_Ranges="bytes"))
    first = int(wanted.removeprefix("bytes=").partition("-")[0])
    return answer(206, BODY[first:], ETag=tag, Content_Range=f"bytes {first}-{LENGTH - 1}/{LENGTH}")


def in_bytes(data: bytes, pause_s: float) -> list:
    """One after the other."""
    return [step for place in range(len(data)) for step in (data[place : place + 1], pause_s)]


STATUS_OUTCOMES = {
    **dict.fromkeys((404, 410), "gone"),
    **dict.fromkeys((401, 402, 451), "restricted"),
    **dict.fromkeys((403, 407, 429), "blocked"),
}
_STATUSES = (
    *(201, 202, 203, 204, 205, 207, 208, 226, 300, 304, 305, 306, 400, 401, 402, 403, 404, 406, 407, 408, 409, 410),
    *(411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 502, 503),
    *(504, 505, 506, 507, 508, 510, 511, 520, 521, 522, 525, 530, 599, 600, 666, 999),
)


def statuses() -> list[Behaviour]:
    """Every status there is, and some that there are not; 405 and 501 of HEAD lead to a GET."""
    found = []
    for status in _STATUSES:
        expected = frozenset({STATUS_OUTCOMES.get(status, "transient")})
        found.append(Behaviour(f"status-{status}", whole(answer(status)), expected, expected))
    for status in (405, 501):
        found.append(Behaviour(f"status-{status}", whole(answer(status)), TRANSIENT, TRANSIENT))
        found.append(
            Behaviour(
                f"head-{status}",
                lambda request, status=status: (
                    good(request) if request.method == "GET" else head_only(request, answer(status)),
                    CLOSE,
                ),
                OK,
                OK,
            )
        )
    for wait in ("5" * 5000, "-1", "soon", "Fri, 31 Dec 9999 23:59:59 GMT", "Thu, 01 Jan 0001 00:00:00 GMT", "\xff"):
        data = answer(429, b"", Retry_After=wait)
        found.append(
            Behaviour(f"retry-after-{len(found)}", whole(data), frozenset({"blocked"}), frozenset({"blocked"}))
        )
    return found


def well() -> list[Behaviour]:
    """A well server, in several styles: all bytes must come."""
    crlf = answer(ETag='"a"')
    styles = {
        "good": lambda request: (good(request), KEEP),
        "good-close": lambda request: (good(request), CLOSE),
        "lf-only": whole(crlf.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"\n") + b"\n\n" + BODY),
        "no-reason": whole(crlf.replace(b"200 x", b"200")),
        "http-1.0": whole(crlf.replace(b"HTTP/1.1", b"HTTP/1.0")),
        "folded": whole(answer(X_Long="one\r\n two")),
        "no-length": whole(answer(length=None, Connection="close")),
        "continue": lambda request: (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, good(request), CLOSE),
        "early-hints": lambda request: (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", good(request), CLOSE),
        "processing": lambda request: (b"HTTP/1.1 102 Processing\r\n\r\n" * 2, good(request), CLOSE),
        "aws-chunked": whole(answer(Content_Encoding="aws-chunked")),
        "identity": whole(answer(Content_Encoding="identity")),
        "in-pieces": lambda request: (
            (head_only(request, answer()), CLOSE)
            if request.method == "HEAD"
            else (answer(body=b"", length=LENGTH), *in_bytes(BODY[:20], 0.01), BODY[20:], CLOSE)
        ),
    }
    return [Behaviour(name, say, OK, OK) for name, say in styles.items()]

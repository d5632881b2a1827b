"""What comes before a body, or instead of it."""

from odd_http.cases import BODY, EITHER, OK, SLOW, TRANSIENT, Behaviour, answer, fixed, good, in_bytes, whole
from odd_http.server import CLOSE, KEEP, RESET

_STATUS = b"HTTP/1.1 200 OK\r\n"
_STAGES = {
    "start": b"",
    "in-status": b"HTTP/1.1 2",
    "after-status": _STATUS,
    "in-name": _STATUS + b"Content-Le",
    "in-value": _STATUS + b"Content-Length: 1",
    "before-end": _STATUS + b"Content-Length: 10240\r\n",
}


def stages() -> list[Behaviour]:
    """Every moment of a head at which a server can stop, hang up, or trickle."""
    found = []
    for name, said in _STAGES.items():
        found.append(Behaviour(f"stall-{name}", fixed(said, 60.0), SLOW, SLOW))
        found.append(Behaviour(f"reset-{name}", fixed(said, 0.05, RESET), TRANSIENT, TRANSIENT))
        found.append(Behaviour(f"hangup-{name}", fixed(said, CLOSE), TRANSIENT, TRANSIENT))
    for pause_s in (0.05, 0.5, 2.0):
        head = in_bytes(_STATUS + b"X-Slow: " + b"x" * 4000, pause_s)
        found.append(Behaviour(f"slow-head-{pause_s}", fixed(*head), SLOW, SLOW))
    return found


def interim() -> list[Behaviour]:
    """Answers that are not the answer, for ever."""
    kinds = {
        "100": b"HTTP/1.1 100 Continue\r\n\r\n",
        "100-headers": b"HTTP/1.1 100 Continue\r\nX-Much: " + b"x" * 1000 + b"\r\n\r\n",
        "102": b"HTTP/1.1 102 Processing\r\n\r\n",
        "103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "199": b"HTTP/1.1 199 x\r\n\r\n",
    }
    found = []
    for name, said in kinds.items():
        found.append(Behaviour(f"storm-{name}", fixed([said * 100]), TRANSIENT, TRANSIENT))
        found.append(Behaviour(f"drip-{name}", fixed([said, 0.3]), SLOW, SLOW))
    found.append(Behaviour("switching", fixed(b"HTTP/1.1 101 x\r\n\r\n", 60.0), TRANSIENT, TRANSIENT))
    return found


def sizes() -> list[Behaviour]:
    """Heads that are too large, or not heads."""
    line = b"X-Long: " + b"x" * 60_000 + b"\r\n"
    heads = {
        "long-line": b"X-Long: " + b"x" * 200_000 + b"\r\n",
        "endless-line": None,
        "many-lines": b"X-A: b\r\n" * 5000,
        "long-lines": line * 20,
        "blank-name": b": x\r\n",
        "no-colon": b"nothing\r\n",
        "null": b"X-Null: a\0b\r\n",
        "binary": b"X-\xff\xfe: \x80\x81\r\n",
        "space-in-name": b"X Y: z\r\n",
        "bare-cr": b"X-A: b\rX-C: d\r\n",
    }
    found = []
    for name, lines in heads.items():
        good_too = name not in ("long-line", "endless-line", "many-lines", "long-lines")
        expected = EITHER if good_too else TRANSIENT
        if lines is None:
            say = fixed(_STATUS + b"X-Endless: ", [b"x" * 4096])
        else:
            say = whole(_STATUS + lines + b"Content-Length: 10240\r\n\r\n" + BODY)
        found.append(Behaviour(f"head-{name}", say, expected, expected))
    return found


def not_http() -> list[Behaviour]:
    """Something else than http."""
    texts = {
        "nothing": b"\r\n\r\n",
        "html": b"<html><body>Please log in</body></html>",
        "ssh": b"SSH-2.0-OpenSSH_9.0\r\n",
        "smtp": b"220 mail ESMTP\r\n",
        "icy": b"ICY 200 OK\r\n\r\n" + BODY,
        "h2": b"\0\0\x12\x04\0\0\0\0\0" + bytes(18),
        "tls": b"\x15\x03\x01\0\x02\x02\x28",
        "random": bytes((7 * n * n + 3 * n) % 256 for n in range(5000)),
        "zeros": bytes(100_000),
        "version-9": b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "version-x": b"HTTP/x 200 OK\r\n\r\n",
        "status-x": b"HTTP/1.1 abc OK\r\n\r\n",
        "status-negative": b"HTTP/1.1 -200 OK\r\n\r\n",
        "status-5-digits": b"HTTP/1.1 20000 OK\r\n\r\n",
        "status-5000-digits": b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n",
        "status-none": b"HTTP/1.1\r\n\r\n",
        "status-line-endless": None,
        "blank-lines": b"\r\n" * 3 + answer(),
    }
    found = []
    for name, text in texts.items():
        say = fixed(b"HTTP/1.1 200 ", [b"y" * 4096]) if text is None else fixed(text, CLOSE)
        found.append(Behaviour(f"not-{name}", say, TRANSIENT, TRANSIENT))
    return found


def cookies() -> list[Behaviour]:
    """Cookies that are many, large or strange; they harm nobody."""
    strange = [
        "=",
        ";;;",
        "a",
        "a=b; expires=" + "1" * 3000,
        "a=b; Domain=com",
        "a=b; Max-Age=" + "9" * 5000,
        "\xff=\xfe",
    ]
    strange += ["a=b; expires=" + " " * 30_000 + "x", 'a="' + "\\" * 30_000, "a=b; " * 6000, "a=b; version=\u00b2"]
    found = []
    for number, text in enumerate(strange):
        found.append(Behaviour(f"cookie-{number}", whole(answer(Set_Cookie=text)), OK, OK))
    many = b"".join(b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 2000) for n in range(90))
    found.append(Behaviour("cookie-many", whole(_STATUS + many + b"Content-Length: 10240\r\n\r\n" + BODY), OK, OK))
    huge = b"".join(b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 60_000) for n in range(90))
    found.append(Behaviour("cookie-huge", whole(_STATUS + huge + b"Content-Length: 0\r\n\r\n"), TRANSIENT, TRANSIENT))
    found.append(Behaviour("cookie-good", lambda request: (good(request), KEEP), OK, OK))
    return found


def all_of_them() -> list[Behaviour]:
    """Of this file."""
    return [*stages(), *interim(), *sizes(), *not_http(), *cookies()]

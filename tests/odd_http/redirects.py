"""Redirects: loops, chains, and two hundred kinds of rubbish for a Location."""

import random

from odd_http.cases import BODY, EITHER, OK, SLOW, TRANSIENT, Behaviour, answer, fixed, good, whole
from odd_http.server import KEEP, Request, Steps

_LOCATIONS = (
    *(
        "http://[",
        "http://[::1",
        "http://]",
        "http://",
        "http:///x",
        "//",
        "///",
        "////x",
        "\\\\host\\x",
        "http:",
        "https:",
    ),
    *(
        "http:x",
        "http:/x",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "gopher://x",
        "javascript:alert(1)",
        "mailto:a@b",
    ),
    *("data:text/plain,x", "ws://x", "urn:x:y", "about:blank", "blob:x", "HTTP://LOCALHOST/", "http://localhost:1/"),
    *("http://127.0.0.2:1/", "http://0/", "http://0x7f.1:1/", "http://2130706433:1/", "http://[::ffff:127.0.0.1]:1/"),
    *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[fe80::1%25eth0]/", "http://[v1.x]/"),
    *("http://host:99999/", f"http://host:{'5' * 5000}/", "http://host:-1/", "http://host:abc/", "http://host:/"),
    *("http://a b/", "http://a\tb/", "http://%00/", "http://%31%32%37.0.0.1/", "http://@", "http://:@:", "http://:80/"),
    *("http://user:pass@localhost/", "http://a@b@localhost/", "http://.../", "http://./", "http://../", "http://a..b/"),
    *(f"http://{'a' * 70}.com/", f"http://{'a.' * 200}/", f"http://{'a' * 60_000}/", "http://xn--/", "http://xn--a/"),
    *("http://-a-/", "http://a_b.invalid/", "http://\xe4.invalid/", "http://\u20ac.invalid/", "http://\u2025/"),
    *("http://\uff11\uff12\uff17.0.0.1/", "http://\u263a/", "http://a\u3002b/"),
    *("http://localhost\\@example.com/", "http://example.com\\@localhost/", "http://localhost#@example.com/"),
    *("http://localhost?@example.com/", "http://[::1]:80:80/", "http://1.2.3.4.5/", "http://256.256.256.256/"),
    *(
        "http://0377.0.0.1:1/",
        "http://1/",
        "http://127.1:1/",
        "http://*/",
        "http://!/",
        "http://$(x)/",
        "http://'/",
        'http://"/',
    ),
    *("http://<script>/", "http://{}/", "http://|/", "http://^/", "http://`/", "http://\x7f/", "h\x01ttp://x/"),
)
_OWN = ("", " ", "?", "#", ".", "..", ":", "x", "%", "%zz", "?x=\xff", ";", "x" * 60_000, "/%2e%2e/", "//%")
_RANDOM = 80


def rubbish() -> list[Behaviour]:
    """Where nobody can go, or should."""
    draw = random.Random(0)
    texts = [*_LOCATIONS, *_OWN]
    for _ in range(_RANDOM):
        drawn = bytes(draw.choice(range(1, 256)) for _ in range(draw.choice((3, 20, 200))))
        begin = draw.choice(("", "http://", "//", "http://localhost:", "https://[")).encode()
        texts.append((begin + drawn.replace(b"\r", b".").replace(b"\n", b".")).decode("latin-1"))
    found = []
    for number, text in enumerate(texts):
        # UTF-8 goes out as its bytes.
        raw = text if all(ord(letter) < 256 for letter in text) else text.encode().decode("latin-1")
        found.append(Behaviour(f"location-{number:03d}", whole(answer(302, b"", Location=raw)), TRANSIENT, TRANSIENT))
    return found


def _again(how: str, body: bytes = b"", pause_s: float = 0.0):
    """Redirects within its own server, from `/how/n` to `/how/n+1`, and after ten of them is good where it may be."""

    def say(request: Request) -> Steps:
        name, number = request.path.split("/")[1], int(("/".join([request.path, "0"])).split("/")[2] or 0)
        last = {"chain-9": 9, "chain-cookies": 9}.get(how)
        if last is not None and number >= last:
            return (good(request), KEEP)
        target = request.path if how == "loop" else f"/{name}/{number + 1}"
        more = {"Set_Cookie": f"c{number}={'x' * 3900}"} if how == "chain-cookies" else {}
        return (pause_s, answer(302, body, Location=target, **more), KEEP)

    return say


def chains() -> list[Behaviour]:
    """Redirects that lead somewhere, or nowhere."""
    found = [
        Behaviour("redirect-loop", _again("loop"), TRANSIENT, TRANSIENT),
        Behaviour("redirect-on-and-on", _again("on"), TRANSIENT, TRANSIENT),
        Behaviour("redirect-chain-9", _again("chain-9"), OK, OK),
        Behaviour("redirect-cookies", _again("chain-cookies"), OK, OK),
        Behaviour("redirect-slow", _again("on", pause_s=1.0), SLOW, SLOW),
        Behaviour("redirect-bodies", _again("on", body=b"x" * 100_000), TRANSIENT, TRANSIENT),
        Behaviour(
            "redirect-endless-body",
            fixed(b"HTTP/1.1 302 x\r\nLocation: /redirect-endless-body\r\n\r\n", [b"x" * 65536]),
            TRANSIENT,
            TRANSIENT,
        ),
        Behaviour(
            "redirect-huge-body",
            fixed(b"HTTP/1.1 302 x\r\nLocation: /redirect-huge-body\r\nContent-Length: 99999999999\r\n\r\n", 60.0),
            TRANSIENT,
            TRANSIENT,
        ),
        Behaviour(
            "redirect-two-locations",
            whole(b"HTTP/1.1 302 x\r\nLocation: /good\r\nLocation: /good\r\nContent-Length: 0\r\n\r\n"),
            EITHER,
            EITHER,
        ),
    ]
    for status in (301, 302, 303, 307, 308):
        found.append(Behaviour(f"redirect-{status}", whole(answer(status, b"", Location="/good")), OK, OK))
        found.append(Behaviour(f"redirect-{status}-nowhere", whole(answer(status, BODY)), TRANSIENT, TRANSIENT))
    return found


def all_of_them() -> list[Behaviour]:
    """Of this file."""
    return [*rubbish(), *chains()]

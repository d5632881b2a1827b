"""What happens below http: TLS, proxies, and servers that are not there."""

from odd_http.cases import BODY, LENGTH, OK, SLOW, TRANSIENT, Behaviour, answer, fixed, good, head_only, in_bytes, whole
from odd_http.server import CLOSE, RESET

_TLS = frozenset({"transient/tls"})
_HELLO = b"\x16\x03\x03\x40\x00"  # a record of 16 KiB begins


def tls() -> list[Behaviour]:
    """Certificates, and servers that stop in the middle of TLS."""
    certificates = [
        Behaviour(f"tls-{kind}", whole(answer()), _TLS, _TLS, kind) for kind in ("expired", "other", "unknown")
    ]
    half = answer(body=BODY[: LENGTH // 2], length=LENGTH)
    inside = {
        "good": (lambda request: (good(request), CLOSE), OK),
        "no-length": (whole(answer(length=None)), OK),
        "cut": (fixed(half, CLOSE), TRANSIENT),
        "reset": (fixed(half, 0.05, RESET), TRANSIENT),
        "stall": (fixed(half, 60.0), SLOW),
        "slow-head": (fixed(*in_bytes(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 500, 0.2)), SLOW),
        "storm": (fixed([b"HTTP/1.1 100 Continue\r\n\r\n" * 50]), TRANSIENT),
        "gone": (whole(answer(404)), frozenset({"gone"})),
    }
    for name, (say, expected) in inside.items():
        to_head = OK if name in ("good", "no-length", "cut", "reset", "stall") else expected
        both = say if name not in ("cut", "reset", "stall") else _get(say)
        certificates.append(Behaviour(f"tls-{name}", both, expected, to_head, "right"))
    return certificates


def _get(say):
    return lambda request: (head_only(request, answer()), CLOSE) if request.method == "HEAD" else say(request)


def greetings() -> list[Behaviour]:
    """A server that speaks before it is asked, to a client that expects TLS or a proxy."""
    texts = {
        "silence": (60.0,),
        "hangup": (CLOSE,),
        "reset": (RESET,),
        "text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", CLOSE),
        "drip": (_HELLO, *in_bytes(b"\x02" * 2000, 0.2)),
        "noise": (b"\x00\xff" * 5000, CLOSE),
        "endless": (b"HTTP/1.1 200 ", [b"x" * 4096]),
    }
    found = []
    for kind in ("https", "http-proxy", "connect-proxy", "socks5-proxy", "socks5h-proxy", "socks4-proxy"):
        for name, steps in texts.items():
            slow = name in ("silence", "drip") and not (name == "drip" and kind != "https")
            expected = SLOW if slow else TRANSIENT | frozenset({"blocked"})
            found.append(Behaviour(f"{kind}-{name}", fixed(*steps), expected, expected, greeting=kind))
    found.append(
        Behaviour(
            "proxy-refuses", fixed(b"HTTP/1.1 407 x\r\n\r\n", CLOSE), TRANSIENT, TRANSIENT, greeting="connect-proxy"
        )
    )
    slow = in_bytes(b"HTTP/1.1 200 x\r\nX-Slow: " + b"x" * 500, 0.2)
    found.append(Behaviour("proxy-slow", fixed(*slow), SLOW, SLOW, greeting="connect-proxy"))
    return found


def all_of_them() -> list[Behaviour]:
    """Of this file."""
    return [*tls(), *greetings()]

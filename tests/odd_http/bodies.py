"""Bodies: lengths that lie, chunks, encodings, ranges, and what comes after the end."""

import gzip
import random
import zlib
from collections.abc import Callable

import brotli
import zstandard

from odd_http.cases import (
    BODY,
    EITHER,
    LENGTH,
    OK,
    SLOW,
    TRANSIENT,
    Behaviour,
    answer,
    fixed,
    good,
    head_only,
    in_bytes,
    whole,
)
from odd_http.server import CLOSE, KEEP, RESET, Request, Steps

_HEAD = b"HTTP/1.1 200 OK\r\n"
_HALF = LENGTH // 2
_TOO_LARGE = frozenset({"unusable/too_large"})


def _get(*steps, head: bytes = answer()) -> Callable[[Request], Steps]:
    """Says steps to GET; HEAD is answered well."""
    return lambda request: (head_only(request, head), CLOSE) if request.method == "HEAD" else steps


def lengths() -> list[Behaviour]:
    """What a Content-Length can say."""
    found = []
    for text, expected in (
        ("+10240", EITHER),
        ("0x2800", EITHER),
        ("1e4", EITHER),
        ("", EITHER),
        ("ten", EITHER),
        ("-1", EITHER),
        ("-10240", EITHER),
        ("10240, 10240", EITHER),
        ("10240, 5", EITHER),
        ("5, 10240", EITHER),
        ("\u00b2", EITHER),
        (" 10240 ", OK),
        ("00010240", OK),
        ("9" * 5000, EITHER),
        ("0", TRANSIENT),
        ("5", EITHER),
        ("10239", EITHER),
        ("10241", TRANSIENT),
        ("1000000", TRANSIENT),
    ):
        name = f"length-{len(found)}"
        found.append(Behaviour(name, whole(answer(length=text)), expected, EITHER))
    found.append(Behaviour("length-huge", _get(answer(length=10**15), 60.0), _TOO_LARGE, OK))
    found.append(Behaviour("length-beyond", _get(answer(length=10**30), CLOSE), EITHER, OK))
    found.append(
        Behaviour(
            "length-two", whole(_HEAD + b"Content-Length: 5\r\nContent-Length: 10240\r\n\r\n" + BODY), EITHER, EITHER
        )
    )
    found.append(Behaviour("length-none-kept", _get(answer(length=None), 60.0), SLOW, OK))
    return found


def moments() -> list[Behaviour]:
    """A body that stops, trickles, or does not stop."""
    half = answer(body=BODY[:_HALF], length=LENGTH)
    tagged = answer(body=BODY[:_HALF], length=LENGTH, ETag='"a"')
    endless = _HEAD + b"Connection: close\r\n\r\n"
    return [
        Behaviour("body-stall", _get(half, 60.0), SLOW, OK),
        Behaviour("body-stall-at-once", _get(answer(body=b"", length=LENGTH), 60.0), SLOW, OK),
        Behaviour("body-reset", _get(half, 0.05, RESET), TRANSIENT, OK),
        Behaviour("body-cut", _get(half, CLOSE), TRANSIENT, OK),
        Behaviour("body-cut-each-time", _get(tagged, CLOSE), TRANSIENT, OK),
        Behaviour("body-reset-each-time", _get(tagged, 0.05, RESET), TRANSIENT, OK),
        Behaviour("body-slow", _get(answer(body=b"", length=LENGTH), *in_bytes(BODY, 0.2)), SLOW, OK),
        Behaviour("body-slow-no-length", _get(endless, *in_bytes(BODY, 0.2)), SLOW, OK),
        Behaviour("body-endless", _get(endless, [b"x" * 65536]), _TOO_LARGE, OK),
        Behaviour("body-endless-slow", _get(endless, [b"x" * 100, 0.1]), SLOW, OK),
        Behaviour("body-empty", _get(endless, CLOSE), TRANSIENT, OK),
        Behaviour("body-of-204", whole(answer(204)), TRANSIENT, TRANSIENT),
        Behaviour("body-to-head", fixed(answer(), CLOSE), OK, OK),
        Behaviour("body-to-head-endless", fixed(answer(body=b"", length=LENGTH), BODY, [b"x" * 4096]), EITHER, OK),
        Behaviour("after-crlf", _get(answer() + b"\r\n", KEEP), OK, OK),
        Behaviour("after-answer", _get(answer() + answer(404, b"gone"), KEEP), OK, OK),
        Behaviour("after-garbage", _get(answer() + bytes(5000), KEEP), OK, OK),
        Behaviour("after-hangup", lambda request: (good(request), CLOSE), OK, OK),
        Behaviour("after-reset", lambda request: (good(request), 0.3, RESET), OK, OK),
        Behaviour("after-late-garbage", lambda request: (good(request), 0.02, b"x" * 100, KEEP), OK, OK),
    ]


def chunks() -> list[Behaviour]:
    """The chunked coding, well and badly."""
    head = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%s\r\n" % (LENGTH, BODY)
    end = b"0\r\n\r\n"
    many = b"".join(b"40\r\n%s\r\n" % BODY[at : at + 64] for at in range(0, LENGTH, 64))
    cases = {
        "good": ((body, end), OK),
        "many": ((many, end), OK),
        "upper": ((b"%X\r\n%s\r\n" % (LENGTH, BODY), end), OK),
        "zeros": ((b"00000%x\r\n%s\r\n" % (LENGTH, BODY), end), OK),
        "extension": ((b"%x;a=b\r\n%s\r\n" % (LENGTH, BODY), end), OK),
        "space": ((b"%x \r\n%s\r\n" % (LENGTH, BODY), end), OK),
        "trailers": ((body, b"0\r\nX-Sum: 1\r\n\r\n"), OK),
        "no-last-line": ((body, b"0\r\n"), OK),
        "empty": ((end,), TRANSIENT),
        "no-end": ((body,), TRANSIENT),
        "cut": ((body[:5000],), TRANSIENT),
        "negative": ((b"-5\r\n", BODY), TRANSIENT),
        "prefix": ((b"0x2800\r\n" + BODY + b"\r\n", end), TRANSIENT),
        "underscore": ((b"28_00\r\n" + BODY + b"\r\n", end), TRANSIENT),
        "plus": ((b"+2800\r\n" + BODY + b"\r\n", end), TRANSIENT),
        "word": ((b"many\r\n" + BODY, end), TRANSIENT),
        "blank": ((b"\r\n" + BODY, end), TRANSIENT),
        "digits-5000": ((b"f" * 5000 + b"\r\n" + BODY, end), TRANSIENT),
        "huge": ((b"ffffffffffffff\r\n" + BODY, CLOSE), TRANSIENT),
        "lie-short": ((b"10\r\n" + BODY + b"\r\n", end), TRANSIENT),
        "no-crlf": ((b"%x\r\n%s" % (LENGTH, BODY), end), TRANSIENT),
        "size-endless": (([b"1" * 4096],), TRANSIENT),
        "extension-endless": ((b"5;", [b"x" * 4096]), TRANSIENT),
        "stall": ((body[:5000], 60.0), SLOW),
        "stall-at-end": ((body, 60.0), SLOW),
        "trailers-endless": ((body, b"0\r\n", [b"X-More: 1\r\n" * 50]), TRANSIENT),
        "trailers-slow": ((body, b"0\r\n", [b"X-More: 1\r\n", 0.2]), SLOW),
        "trailer-line": ((body, b"0\r\nX-Long: ", [b"x" * 4096]), TRANSIENT),
        "drip": (([b"1\r\nx\r\n", 0.2],), SLOW),
        "endless": (([b"1000\r\n" + b"x" * 4096 + b"\r\n"],), _TOO_LARGE),
    }
    found = [
        Behaviour(f"chunk-{name}", _get(head, *steps, CLOSE), expected, OK) for name, (steps, expected) in cases.items()
    ]
    for coding in ("gzip, chunked", "chunked, chunked", "gzip", "x", "identity"):
        said = _HEAD + f"Transfer-Encoding: {coding}\r\n\r\n".encode() + body + end
        found.append(Behaviour(f"transfer-{coding.replace(', ', '+')}", _get(said, CLOSE), EITHER, OK))
    both = _HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end
    return [*found, Behaviour("chunk-and-length", _get(both, CLOSE), OK, OK)]


def _zlib(wbits: int) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return coder.compress(BODY) + coder.flush()


def encodings() -> list[Behaviour]:
    """Content codings, although none was asked for: decoded, or to be asked for again; never what becomes of a clip."""
    packed, noise = gzip.compress(BODY), random.Random(0).randbytes(5000)
    zeros = bytes(64 << 20)
    bomb = gzip.compress(zeros, 9)
    cases = {
        "gzip": ("gzip", packed, OK),
        "gzip-upper": ("GZIP", packed, OK),
        "x-gzip": ("x-gzip", packed, OK),
        "gzip-identity": ("gzip, identity", packed, OK),
        "gzip-members": ("gzip", gzip.compress(BODY[:_HALF]) + gzip.compress(BODY[_HALF:]), OK),
        "gzip-tail": ("gzip", packed + b"tail", EITHER),
        "gzip-short": ("gzip", packed[:-200], EITHER),
        "gzip-head-only": ("gzip", packed[:10], TRANSIENT),
        "gzip-plain": ("gzip", BODY, TRANSIENT),
        "gzip-noise": ("gzip", packed[:10] + noise, TRANSIENT),
        "gzip-empty": ("gzip", gzip.compress(b""), TRANSIENT),
        "gzip-empties": ("gzip", gzip.compress(b"") * 5000, TRANSIENT),
        "gzip-twice": ("gzip, gzip", gzip.compress(packed), EITHER),
        "gzip-20-times": (", ".join(["gzip"] * 20), packed, TRANSIENT),
        "gzip-bomb": ("gzip", bomb, TRANSIENT),
        "gzip-bomb-twice": ("gzip, gzip", gzip.compress(bomb, 9), TRANSIENT),
        "deflate": ("deflate", _zlib(15), OK),
        "deflate-raw": ("deflate", _zlib(-15), OK),
        "deflate-bomb": ("deflate", zlib.compress(zeros, 9), TRANSIENT),
        "br": ("br", brotli.compress(BODY), OK),
        "br-noise": ("br", noise, EITHER),
        "br-bomb": ("br", brotli.compress(zeros, quality=1), TRANSIENT),
        "zstd": ("zstd", zstandard.compress(BODY), EITHER),
        "zstd-noise": ("zstd", noise, TRANSIENT),
        "zstd-bomb": ("zstd", zstandard.compress(zeros), TRANSIENT),
        "unknown": ("rot13", BODY, TRANSIENT),
        "compress": ("compress", BODY, TRANSIENT),
        "comma": (",", BODY, OK),
        "binary": ("\xff\xfe", BODY, TRANSIENT),
        "long": ("x" * 50_000, BODY, TRANSIENT),
    }
    found = [
        Behaviour(f"encoding-{name}", whole(answer(body=body, Content_Encoding=coding)), expected, OK)
        for name, (coding, body, expected) in cases.items()
    ]
    half = answer(body=packed[: len(packed) // 2], length=len(packed), Content_Encoding="gzip", ETag='"a"')
    chunked = _HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    return [
        *found,
        Behaviour("encoding-gzip-cut", _get(half, CLOSE), TRANSIENT, OK),
        Behaviour("encoding-gzip-stall", _get(half, 60.0), SLOW, OK),
        Behaviour("encoding-gzip-chunked", _get(chunked, CLOSE), OK, OK),
        Behaviour(
            "encoding-gzip-no-length", _get(answer(body=packed, length=None, Content_Encoding="gzip"), CLOSE), OK, OK
        ),
    ]


def ranges() -> list[Behaviour]:
    """A server that cuts the first answer half way, and says something else to the request for the rest."""

    def then(rest: Callable[[Request], Steps], tag: str = '"a"') -> Callable[[Request], Steps]:
        first = answer(body=BODY[:_HALF], length=LENGTH, ETag=tag)
        return lambda request: (
            (head_only(request, answer()), CLOSE)
            if request.method == "HEAD"
            else (rest(request) if "range" in request.headers else (first, CLOSE))
        )

    def part(said: str, body: bytes = BODY[_HALF:], tag: str = '"a"') -> Callable[[Request], Steps]:
        return fixed(answer(206, body, ETag=tag, **({"Content_Range": said} if said else {})), CLOSE)

    right = f"bytes {_HALF}-{LENGTH - 1}/{LENGTH}"
    cases = {
        "good": (lambda request: (good(request), CLOSE), OK),
        "whole-again": (fixed(answer(ETag='"a"'), CLOSE), OK),
        "other-bytes": (part(right, bytes(LENGTH - _HALF)), EITHER),
        "more-bytes": (part(right, bytes(LENGTH)), TRANSIENT),
        "fewer-bytes": (part(right, BODY[_HALF:-100]), TRANSIENT),
        "no-bytes": (part(right, b""), TRANSIENT),
        "from-0": (part(f"bytes 0-{LENGTH - 1}/{LENGTH}", BODY), TRANSIENT),
        "from-earlier": (part(f"bytes {_HALF - 1}-{LENGTH - 1}/{LENGTH}"), TRANSIENT),
        "other-total": (part(f"bytes {_HALF}-{LENGTH - 1}/99999"), TRANSIENT),
        "no-total": (part(f"bytes {_HALF}-{LENGTH - 1}/*"), TRANSIENT),
        "other-tag": (part(right, tag='"b"'), TRANSIENT),
        "not-said": (part(""), TRANSIENT),
        "words": (part("all of it"), TRANSIENT),
        "negative": (part("bytes -5--1/-10"), TRANSIENT),
        "digits-5000": (part(f"bytes {'9' * 5000}-{'9' * 5000}/{'9' * 5000}"), TRANSIENT),
        "items": (part(f"items {_HALF}-{LENGTH - 1}/{LENGTH}"), TRANSIENT),
        "416": (fixed(answer(416, b"", ETag='"a"'), CLOSE), TRANSIENT),
        "404": (fixed(answer(404, b""), CLOSE), frozenset({"gone", "transient"})),
        "gzip": (
            fixed(answer(206, gzip.compress(BODY), Content_Encoding="gzip", Content_Range=right), CLOSE),
            TRANSIENT,
        ),
        "stall": (fixed(60.0), SLOW),
        "redirect": (fixed(answer(302, b"", Location="http://["), CLOSE), TRANSIENT),
    }
    found = [Behaviour(f"range-{name}", then(rest), expected, OK) for name, (rest, expected) in cases.items()]
    unasked = {
        "whole": (f"bytes 0-{LENGTH - 1}/{LENGTH}", BODY, OK),
        "part": (f"bytes 0-{_HALF - 1}/{LENGTH}", BODY[:_HALF], TRANSIENT),
        "later": (right, BODY[_HALF:], TRANSIENT),
        "no-total": (f"bytes 0-{LENGTH - 1}/*", BODY, TRANSIENT),
    }
    for name, (said, body, expected) in unasked.items():
        found.append(Behaviour(f"unasked-{name}", whole(answer(206, body, Content_Range=said)), expected, OK))
    return found


def all_of_them() -> list[Behaviour]:
    """Of this file."""
    return [*lengths(), *moments(), *chunks(), *encodings(), *ranges()]

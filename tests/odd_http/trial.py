"""Servers for the behaviours in a process of their own, and what a download and a question make of each."""

import contextlib
import dataclasses
import datetime
import multiprocessing
import os
import ssl
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import trustme

from mbt.pipeline.download import Limits, download, head
from mbt.pipeline.hosts import Hosts
from mbt.pipeline.outcomes import FetchError
from odd_http import bodies, cases, heads, redirects, transport
from odd_http.cases import BODY, OK, Behaviour
from odd_http.server import Server

MAX_BYTES = 1 << 20
LATE = 1.1  # of its limit an exchange may take
_RULE = Hosts(named=frozenset({"127.0.0.1", "films.example"}))
_ELSEWHERE = {"https": "https://127.0.0.1:{port}", "http-proxy": "http://8.8.8.8", "connect-proxy": "https://8.8.8.8"}


def behaviours() -> list[Behaviour]:
    """All of them."""
    found = [*cases.statuses(), *cases.well(), *heads.all_of_them(), *redirects.all_of_them()]
    found += [*bodies.all_of_them(), *transport.all_of_them()]
    assert len({each.name for each in found}) == len(found)
    return found


@dataclasses.dataclass(frozen=True)
class Result:
    """How one behaviour was taken.

    Attributes:
      name: of the behaviour.
      method: GET for a download, HEAD for a question.
      came: the outcome, and its reason.
      seconds: it took.
      complaints: what is wrong with that.
    """

    name: str
    method: str
    came: str
    seconds: float
    complaints: tuple[str, ...]


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Runs the servers; yields the URL for each behaviour's name. The client trusts what is in `folder`/ca.pem."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, folder), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join(10)
        process.kill()


def _serve(pipe: Connection, folder: Path) -> None:
    authority, unknown = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificates = {
        "right": authority.issue_cert("127.0.0.1"),
        "expired": authority.issue_cert("127.0.0.1", not_after=past),
        "other": authority.issue_cert("films.example"),
        "unknown": unknown.issue_cert("127.0.0.1"),
    }
    with contextlib.ExitStack() as stack:
        every = behaviours()
        asked = {each.name: each.say for each in every if not each.greeting}
        of_tls = {"": stack.enter_context(Server(asked))}
        for name, certificate in certificates.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            of_tls[name] = stack.enter_context(Server(asked, context))
        urls = {each.name: f"{of_tls[each.tls].url}/{each.name}" for each in every if not each.greeting}
        for each in every:
            if each.greeting:
                urls[each.name] = stack.enter_context(Server({}, greeting=each.say(None))).url
        pipe.send(urls)
        with contextlib.suppress(EOFError):
            pipe.recv()


def try_both(each: Behaviour, url: str, folder: Path, limit_s: float) -> list[Result]:
    """A download, and a question."""
    proxy = None
    if each.greeting:
        port = url.rpartition(":")[2]
        if each.greeting.endswith("-proxy"):
            kind = each.greeting.removesuffix("-proxy")
            proxy = f"{kind if kind.startswith('socks') else 'http'}://127.0.0.1:{port}"
        url = _ELSEWHERE.get(each.greeting, "http://8.8.8.8").format(port=port) + "/x"
    path = folder / each.name.replace("/", "_")
    limits = Limits(max_bytes=MAX_BYTES, time_limit_s=limit_s, read_timeout_s=limit_s)
    sure = [False]

    def get() -> None:
        sure[0] = download(url, str(path), limits, proxy, hosts=_RULE)

    def ask() -> None:
        if failure := head(url, proxy, _RULE, limit_s):
            raise FetchError(failure)

    came, seconds, complaints = _took(get, each.get, limit_s)
    if came == "ok":
        right = path.read_bytes() == BODY
        complaints += ["other bytes, for sure"] if sure[0] and not right else []
        complaints += ["other bytes"] if each.get == OK and not right else []
    elif path.exists():
        complaints.append("a file is left")
    results = [Result(each.name, "GET", came, seconds, tuple(complaints))]
    came, seconds, complaints = _took(ask, each.head, limit_s)
    return [*results, Result(each.name, "HEAD", came, seconds, tuple(complaints))]


def _took(act: Callable[[], None], expected: frozenset[str], limit_s: float) -> tuple[str, float, list[str]]:
    started, complaints = time.monotonic(), []
    try:
        act()
        came = "ok"
    except FetchError as error:
        came = f"{error.failure.outcome.value}/{error.failure.reason}"
    except Exception as error:
        came = f"raised {type(error).__name__}"
    seconds = time.monotonic() - started
    if not {came, came.partition("/")[0]} & expected:
        complaints.append(f"expected {', '.join(sorted(expected))}")
    if seconds > LATE * limit_s:
        complaints.append(f"took {seconds:.1f} s of {limit_s:.0f} s")
    return came, seconds, complaints


def trust(folder: Path) -> None:
    """Has this process's clients trust the servers."""
    os.environ["REQUESTS_CA_BUNDLE"] = str(folder / "ca.pem")

"""Which hosts a request may go to, and that the address that was judged is the one that is connected to."""

import socket
import ssl
import threading

import pytest
import trustme
from media_server import serving
from odd_http.cases import answer, fixed
from odd_http.server import CLOSE, Server

from mbt.pipeline import download, hosts
from mbt.pipeline.bounds import Bounds
from mbt.pipeline.exchange import Exchange
from mbt.pipeline.outcomes import FetchError

pytestmark = pytest.mark.quick

PUBLIC = (
    *("8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1"),
    *("2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
)
PRIVATE = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1", "192.0.2.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::1", "2002:7f00:1::1", "2002:a9fe:a9fe::", "2001:0:7f00:1::", "::ffff:0:127.0.0.1", "100::1"),
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert hosts.is_public(address)
    hosts.Hosts().check_name(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address):
    assert not hosts.is_public(address)
    with pytest.raises(hosts.PrivateHostError):
        hosts.Hosts().check_addresses("example.com", ["8.8.8.8", address])
    for form in (address, f"[{address}]"):
        with pytest.raises(hosts.PrivateHostError):
            hosts.Hosts().check_name(form)
    hosts.Hosts(allow_private=True).check_addresses("example.com", [address])
    hosts.Hosts(named=frozenset({"example.com"})).check_addresses("Example.com.", [address])


@pytest.mark.parametrize(
    "name",
    [
        *("localhost", "LOCALHOST", "localhost.", "a.localhost", "nas", "nas.local", "metadata.google.internal"),
        *("x.home.arpa", "router.lan", "x.corp", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "10.1"),
        *("017700000001", "0", "127.0.0.1.", "0xa9fea9fe"),
    ],
)
def test_names_that_a_proxy_may_not_look_up(name):
    with pytest.raises(hosts.PrivateHostError):
        hosts.Hosts().check_name(name)
    hosts.Hosts(allow_private=True).check_name(name)


@pytest.mark.parametrize(
    "name", ["example.com", "localhost.example.com", "internal.example.org", "0x08080808", "8.8.2056"]
)
def test_names_that_it_may(name):
    hosts.Hosts().check_name(name)


def test_a_command_line_names_hosts():
    assert hosts.named_in(
        "http://NAS.local:8080/films", "HTTPS://[::1]/x", "/videos", None, "gs://bucket", "http://["
    ) == {
        "nas.local",
        "::1",
    }


@pytest.fixture
def server():
    with serving() as running:
        running.files["x.mp4"] = b"x" * 1000
        yield running


def failure_of(url, tmp_path, resolve=socket.getaddrinfo, **rule) -> tuple[str, str] | None:
    """How a download of a URL fails."""
    try:
        with Bounds(10, hosts.Hosts(**rule), resolve) as bounds, Exchange(bounds).open("GET", url, {}) as answer:
            while answer.read():
                pass
    except FetchError as error:
        return error.failure.outcome.value, error.failure.reason
    return None


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.1", "[::ffff:127.0.0.1]", "0"]
)
def test_a_row_does_not_lead_into_this_machine(server, tmp_path, host):
    url = f"http://{host}:{server.server_port}/x.mp4"
    assert failure_of(url, tmp_path) == ("invalid", "private_host")
    assert download.head(url).reason == "private_host"
    assert not server.requests and not server.heads
    if host != "localhost":  # it may stand for an address on which this server does not listen
        assert failure_of(url, tmp_path, allow_private=True) is None


def test_a_name_that_changes_is_connected_to_as_it_was_judged(server, tmp_path):
    """A resolver that says a public address first, and then this machine: nobody asks it twice."""
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        address = "203.0.112.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with Bounds(0.5, hosts.Hosts(), resolve) as bounds, pytest.raises(FetchError):
        Exchange(bounds).open("GET", f"http://rebinding.example:{server.server_port}/x.mp4", {})
    assert asked == ["rebinding.example"] and not server.requests


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "169.254.169.254"])
def test_a_name_with_a_public_and_a_private_address_is_refused(server, tmp_path, private):
    family = socket.AF_INET6 if ":" in private else socket.AF_INET

    def resolve(host, port, **_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port)),
            (family, socket.SOCK_STREAM, 6, "", (private, port)),
        ]

    assert failure_of("http://both.example/x", tmp_path, resolve) == ("invalid", "private_host")


def test_a_name_is_asked_for_by_name_at_the_address_that_was_judged(server, tmp_path):
    def resolve(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    assert failure_of(f"http://films.example:{server.server_port}/x.mp4", tmp_path, resolve, allow_private=True) is None
    assert server.hosts == [f"films.example:{server.server_port}"]


@pytest.mark.parametrize(("name", "reason"), [("films.example", None), ("other.example", "tls")])
def test_a_certificate_is_for_the_name_at_the_address_that_was_judged(tmp_path, monkeypatch, name, reason):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("films.example").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    def resolve(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    with Server({"x": fixed(answer(), CLOSE)}, context) as tls:
        found = failure_of(f"https://{name}:{tls.url.rpartition(':')[2]}/x", tmp_path, resolve, allow_private=True)
        assert found == (reason and ("transient", reason))


def test_a_resolver_that_never_answers_is_left(tmp_path):
    never = threading.Event()
    with Bounds(0.5, hosts.Hosts(), lambda *_, **__: never.wait()) as bounds, pytest.raises(FetchError) as caught:
        Exchange(bounds).open("GET", "http://slow.example/x", {})
    never.set()
    assert caught.value.failure.reason == "too_slow"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://localhost:{other}/x.mp4", "bad_redirect"),
        ("http://[::1]:{other}/x.mp4", "bad_redirect"),
        ("http://169.254.169.254/latest", "bad_redirect"),
        ("http://127.0.0.1:{other}/x.mp4", None),  # another port of the host that the row may name
    ],
)
@pytest.mark.parametrize("rule", [{"allow_private": True}, {"named": frozenset({"127.0.0.1"})}])
def test_a_redirect_leads_into_a_private_network_only_to_a_host_that_was_named(server, tmp_path, target, reason, rule):
    with serving() as other:
        other.files["x.mp4"] = b"x"
        url = f"{server.url}/to/x?{target.format(other=other.server_port)}"
        found = failure_of(url, tmp_path, **rule)
        assert found == (reason and ("transient", reason))
        assert len(other.requests) == (reason is None)


def test_a_connection_that_was_kept_is_judged_by_the_rule_of_who_takes_it(server, tmp_path):
    """A row may name the host, and the connection stays; the next row's server may not redirect there."""
    with serving() as other:
        other.files["x.mp4"] = b"x"
        private = f"http://localhost:{other.server_port}/x.mp4"
        assert failure_of(private, tmp_path, allow_private=True) is None
        url = f"{server.url}/to/x?{private}"
        assert failure_of(url, tmp_path, allow_private=True) == ("transient", "bad_redirect")
        assert failure_of(private, tmp_path) == ("invalid", "private_host")
        assert len(other.requests) == 1


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h", "socks4a"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "nas.local", "metadata.google.internal"])
def test_a_proxy_is_not_asked_for_what_is_private(tmp_path, scheme, host):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        with Bounds(5, hosts.Hosts()) as bounds, pytest.raises(FetchError) as caught:
            Exchange(bounds, f"{scheme}://127.0.0.1:{proxy.getsockname()[1]}").open("GET", f"http://{host}/x", {})
        assert caught.value.failure.reason == "private_host"
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_redirect_through_a_proxy_is_judged_too(server, tmp_path):
    """The proxy is this test's server: it answers for a public name, whose redirect leads into the network."""
    for target in ("http://localhost/x", "http://10.0.0.1/x", "http://2130706433/x", "http://nas.local/x"):
        with Bounds(5, hosts.Hosts()) as bounds, pytest.raises(FetchError) as caught:
            Exchange(bounds, server.url).open("GET", f"http://films.example/to/x?{target}", {})
        assert (caught.value.failure.outcome, caught.value.failure.reason) == ("transient", "bad_redirect")
    assert len(server.requests) == 4


def test_a_socks_proxy_that_looks_nothing_up_gets_the_address_that_was_judged(tmp_path):
    """With socks5 the name is looked up here; it is private, and the proxy hears of nothing."""

    def resolve(host, port, **_):
        address = "127.0.0.1" if host == "127.0.0.1" else "10.0.0.7"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0)
        with Bounds(5, hosts.Hosts(), resolve) as bounds, pytest.raises(FetchError) as caught:
            Exchange(bounds, f"socks5://127.0.0.1:{proxy.getsockname()[1]}").open("GET", "http://films.example/x", {})
        assert caught.value.failure.reason == "private_host"
        with pytest.raises(BlockingIOError):
            proxy.accept()


@pytest.fixture
def ytdlp():
    """It puts a manager of SOCKS proxies of its own in the place of urllib3's."""
    import yt_dlp.networking._requests as loaded

    return loaded


def test_socks_connects_and_gets_the_judged_address(ytdlp, tmp_path):
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if host == "127.0.0.1" else "8.8.4.4", port))]

    heard = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def serve() -> None:
            connection, _ = proxy.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"\5\0")
                heard.append(connection.recv(100))
                connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        thread = threading.Thread(target=serve)
        thread.start()
        with Bounds(5, hosts.Hosts(), resolve) as bounds:
            exchange = Exchange(bounds, f"socks5://127.0.0.1:{proxy.getsockname()[1]}")
            with exchange.open("GET", "http://films.example/x", {}) as answer:
                assert answer.read() == b"ok"
        thread.join()
    assert heard == [b"\5\1\0\1\x08\x08\x04\x04\0\x50"] and asked.count("films.example") == 1

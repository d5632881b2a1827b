"""One download from a real server that misbehaves."""

import os
import threading
import time

import pytest
from media_server import serving

from mbt.pipeline import download as download_lib
from mbt.pipeline.budget import Budget
from mbt.pipeline.download import Limits
from mbt.pipeline.hosts import Hosts
from mbt.pipeline.outcomes import FetchError
from mbt.pipeline.proxies import AllRestingError, Proxies, ProxiesError, read

BODY = os.urandom(300_000)
QUICK = Limits(time_limit_s=3, read_timeout_s=1, max_bytes=1 << 20)
NAMED = Hosts(named=frozenset({"127.0.0.1"}))


def download(url: str, path: str, limits: Limits, **options) -> bool:
    """From this test's server, as if the command line named it."""
    return download_lib.download(url, path, limits, hosts=NAMED, **options)


@pytest.fixture
def server():
    with serving() as running:
        running.files["x.mp4"] = BODY
        yield running


def test_a_whole_file(server, tmp_path):
    came: list[int] = []
    assert download(f"{server.url}/x.mp4", str(tmp_path / "x"), QUICK, on_bytes=came.append)
    assert sum(came) == len(BODY) and (tmp_path / "x").read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "outcome", "reason"),
    [
        ("404/x", "gone", "http_404"),
        ("410/x", "gone", "http_410"),
        ("401/x", "restricted", "http_401"),
        ("403/x", "blocked", "http_403"),
        ("429/x", "blocked", "http_429"),
        ("500/x", "transient", "http_500"),
        ("503/x", "transient", "http_503"),
        ("418/x", "transient", "http_418"),
        ("206/x", "transient", "bad_range"),
        ("loop/x", "transient", "redirect_loop"),
        ("stall/x.mp4", "transient", "timeout"),
        ("silent/x", "transient", "timeout"),
        ("short/x.mp4", "transient", "cut_short"),
        ("huge/x", "unusable", "too_large"),
        ("endless/x", "unusable", "too_large"),
        ("trickle/x", "transient", "too_slow"),
        ("part/x.mp4", "transient", "bad_range"),
        ("nothing/x.mp4", "transient", "cut_short"),
        ("other/x.mp4", "transient", "changed"),
        ("to/x?file:///etc/passwd", "transient", "bad_redirect"),
        ("to/x?http://localhost:1/x", "transient", "bad_redirect"),
        ("to/x?http://[::1]/x", "transient", "bad_redirect"),
        ("to/x?http://169.254.169.254/latest/meta-data", "transient", "bad_redirect"),
        ("to/x?http://10.0.0.1/x", "transient", "bad_redirect"),
    ],
)
def test_every_failure_has_its_outcome_and_leaves_nothing(server, tmp_path, path, outcome, reason):
    started = time.monotonic()
    with pytest.raises(FetchError) as caught:
        download(f"{server.url}/{path}", str(tmp_path / "x"), QUICK)
    failure = caught.value.failure
    assert (failure.outcome, failure.reason) == (outcome, reason), failure
    assert time.monotonic() - started < 60 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "outcome"), [("http://127.0.0.1:1/x", "transient"), ("http://", "invalid"), ("http://[x/", "invalid")]
)
def test_no_server(tmp_path, url, outcome):
    with pytest.raises(FetchError) as caught:
        download(url, str(tmp_path / "x"), QUICK)
    assert caught.value.failure.outcome == outcome


def test_a_cut_connection_is_taken_up_where_it_broke(server, tmp_path):
    # Whether the parts belong together only the server knows.
    assert not download(f"{server.url}/cut_once/x.mp4", str(tmp_path / "x"), QUICK)
    assert (tmp_path / "x").read_bytes() == BODY and len(server.requests) == 2


def test_one_that_is_cut_every_time_is_given_up(server, tmp_path):
    with pytest.raises(FetchError) as caught:
        download(f"{server.url}/cut/x.mp4", str(tmp_path / "x"), QUICK)
    assert caught.value.failure.reason == "cut_short" and 2 <= len(server.requests) <= 6


@pytest.mark.parametrize(("retry_after", "seconds"), [("7", 7), ("nonsense", None), (None, None)])
def test_retry_after_is_heard(server, tmp_path, retry_after, seconds):
    server.retry_after = retry_after
    with pytest.raises(FetchError) as caught:
        download(f"{server.url}/429/x", str(tmp_path / "x"), QUICK)
    assert caught.value.failure.retry_after_s == seconds


def test_bandwidth_is_kept(server, tmp_path):
    started = time.monotonic()
    download(f"{server.url}/x.mp4", str(tmp_path / "x"), Limits(bytes_per_second=300_000))
    assert time.monotonic() - started >= 0.7  # a lower bound: a limit, not a speed


def test_a_machine_has_one_budget(tmp_path):
    """Two views of it, as two processes have, together hold no more slots than there are."""
    budgets = [Budget(3, folder=str(tmp_path)) for _ in range(2)]
    lock, held, most = threading.Lock(), [0], [0]

    def work(budget: Budget) -> None:
        for _ in range(5):
            with budget.download():
                with lock:
                    held[0] += 1
                    most[0] = max(most[0], held[0])
                time.sleep(0.01)
                with lock:
                    held[0] -= 1

    threads = [threading.Thread(target=work, args=(budgets[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [3]


def test_pace_is_kept_by_all_together(tmp_path):
    budgets = [Budget(8, 0.1, folder=str(tmp_path)) for _ in range(2)]
    started = time.monotonic()
    for number in range(6):
        with budgets[number % 2].download(paced=True):
            pass
    assert time.monotonic() - started >= 0.45


def test_a_refused_proxy_rests(tmp_path):
    path = tmp_path / "proxies"
    path.write_text("# ours\nhttp://user:pass@a:1\nsocks5://b:2 # slow\n")
    proxies = read(str(path))
    first, second = proxies.next(), proxies.next()
    assert {first, second} == {"http://user:pass@a:1", "socks5://b:2"} and proxies.next() == first
    proxies.rest(first)
    assert {proxies.next() for _ in range(4)} == {second}
    proxies.rest(second)
    with pytest.raises(AllRestingError):
        proxies.next()
    assert Proxies([]).next() is None


@pytest.mark.parametrize("text", ["", "# none\n", "ftp://a:1\n", "user:secret@host\n", "http://host\n", "http://h:x\n"])
def test_a_bad_file_of_proxies_is_refused_without_its_content(tmp_path, text):
    path = tmp_path / "proxies"
    path.write_text(text)
    with pytest.raises(ProxiesError) as caught:
        read(str(path))
    assert "secret" not in str(caught.value) and str(path) in str(caught.value)

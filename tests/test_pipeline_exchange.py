"""What may happen between us and a web server: the worst of it by default, and a tenth of the campaign in CI."""

import dataclasses
import gzip
import json
import os
import socket
import threading
import tracemalloc

import pytest
from campaigns import http_behaviours
from media_server import PRIVATE, serving
from odd_http.cases import answer, fixed
from odd_http.server import CLOSE, KEEP, Server

from mbt.pipeline import availability, ledger
from mbt.pipeline.bounds import Bounds
from mbt.pipeline.breaker import Breaker
from mbt.pipeline.budget import Budget
from mbt.pipeline.download import Limits, download
from mbt.pipeline.exchange import Exchange
from mbt.pipeline.hosts import Hosts
from mbt.pipeline.outcomes import FetchError
from mbt.pipeline.proxies import Proxies
from mbt.train import media

NAMED = Hosts(named=frozenset({"127.0.0.1"}))
WORST = (
    *("slow-head-0.5", "drip-100", "storm-100-headers", "chunk-trailers-slow", "redirect-slow", "body-slow"),
    *("https-drip", "tls-slow-head", "connect-proxy-silence", "encoding-gzip-bomb", "head-endless-line"),
    *("location-036", "range-more-bytes", "cookie-huge", "after-reset"),
)


@pytest.fixture(autouse=True)
def authorities(monkeypatch):
    """The campaign sets them for its process."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.devnull)


def complaints(results: list) -> list[str]:
    return [
        f"{result.method} {result.name}: {result.came}: {result.complaints}" for result in results if result.complaints
    ]


def test_the_worst_behaviours_end_in_time_and_rightly():
    results = http_behaviours.run(1.0, 4.0, 12, WORST)
    assert len(results) == 2 * len(WORST) and not complaints(results)


@pytest.mark.slow
def test_a_tenth_of_all_behaviours_ends_in_time_and_rightly():
    results = http_behaviours.run(0.1, 5.0, 16)
    assert len(results) >= 100 and not complaints(results)


def told(server: Server, name: str) -> list[dict[str, str]]:
    """The headers of the requests for a name."""
    return [request.headers for request in server.requests if request.path.startswith(f"/{name}")]


def test_no_password_of_netrc_goes_to_a_rows_server(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("default login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Server({"y": fixed(answer(), CLOSE)}) as server:
        # Nor that of a redirect's URL.
        away = f"http://me:secret@{server.url.removeprefix('http://')}/y"
        server.says["x"] = fixed(answer(302, b"", Location=away), KEEP)
        download(f"{server.url}/x", str(tmp_path / "x"), Limits(), hosts=NAMED)
        assert len(server.requests) == 2
        assert not any("authorization" in request.headers for request in server.requests)


def test_cookies_live_as_long_as_one_exchange(tmp_path):
    says = {
        "x": fixed(answer(302, b"", Location="/y", Set_Cookie="a=b; Path=/"), KEEP),
        "y": fixed(answer(Set_Cookie="c=d"), KEEP),
    }
    with Server(says) as server:
        for _ in range(2):
            download(f"{server.url}/x", str(tmp_path / "x"), Limits(), hosts=NAMED)
        assert [headers.get("cookie") for headers in told(server, "x")] == [None, None]
        assert [headers.get("cookie") for headers in told(server, "y")] == ["a=b", "a=b"]


def test_many_cookies_do_not_pile_up(tmp_path):
    def say(request):
        number = int(request.path.split("/")[2])
        cookies = {"Set_Cookie": f"c{number}={'x' * 4000}"}
        return (answer(302, b"", Location=f"/x/{number + 1}", **cookies), KEEP)

    with Server({"x": say}) as server:
        with pytest.raises(FetchError):
            download(f"{server.url}/x/0", str(tmp_path / "x"), Limits(), hosts=NAMED)
        assert len(server.requests) == 11
        assert max(len(headers.get("cookie", "")) for headers in told(server, "x")) < 20_000


def test_a_body_of_a_redirect_and_a_bomb_are_not_held_in_memory(tmp_path):
    bomb = gzip.compress(bytes(200 << 20), 1)
    huge = b"HTTP/1.1 302 x\r\nLocation: /y\r\nContent-Length: 999999999\r\n\r\n"
    says = {
        "x": fixed(huge, *[b"x" * (1 << 20)] * 100, CLOSE),
        "y": fixed(answer(body=bomb, Content_Encoding="gzip"), CLOSE),
    }
    with Server(says) as server:
        tracemalloc.start()
        with pytest.raises(FetchError) as caught:
            download(f"{server.url}/x", str(tmp_path / "x"), Limits(max_bytes=50 << 20), hosts=NAMED)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert caught.value.failure.reason == "bad_encoding" and peak < 30 << 20


@pytest.mark.parametrize(
    "page",
    [
        b"<html>Please log in</html>",
        b"[" * 200_000,
        b"[1, 2]",
        b"null",
        b'{"items": 5}',
        b'{"items": [5, {"id": 7}, {"id": "abc", "status": 3}]}',
        b"\xff\xfe\x00",
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_a_login_page_in_place_of_youtubes_services_vouches_for_nothing(page, tmp_path, monkeypatch):
    """The page comes with status 200, as of a hotel's network; oEmbed's must be JSON too."""
    asker = asker_of(tmp_path)
    with Server({name: fixed(answer(body=page), CLOSE) for name in ("data", "oembed")}) as server:
        monkeypatch.setattr(availability, "_DATA_API", f"{server.url}/data")
        monkeypatch.setattr(availability, "_SERVICES", NAMED)
        assert asker._by_data_api(["abcdefghijk"]) == frozenset()
        assert len(server.requests) == 1


def asker_of(folder, **options) -> availability.Asker:
    (folder / "work").mkdir(exist_ok=True)
    shared = {"budget": Budget(2, folder=str(folder)), "proxies": Proxies([]), "breaker": Breaker(str(folder / "work"))}
    return availability.Asker(youtube=None, api_key="key", **shared, **options)


def test_a_question_that_fails_in_an_unforeseen_way_ends_no_other(tmp_path):
    """The settings for YouTube are missing here, which is nobody's plan."""
    with serving() as server:
        server.files["x.mp4"] = b"x"
        asker = asker_of(tmp_path, hosts=NAMED)
        asker = dataclasses.replace(asker, api_key=None)
        sources = [f"{server.url}/x.mp4", "http://[", "http://localhost/x", f"http://h:{'5' * 5000}/"]
        answers = list(asker.ask(sources, {}))
    assert [each.failure and each.failure.reason for each in answers] == [None, "bad_url", "private_host", "bad_url"]
    assert all(each.failure.outcome == "transient" for each in answers if each.failure)


@pytest.mark.parametrize("location", [b"http://[", b"http://\xe9\x80:" + b"5" * 5000])
def test_a_bad_location_does_not_end_a_refresh(clip_folder, mbt_data, tmp_path, location):
    """The file is there for GET; HEAD is redirected to where nobody can go."""
    film = (clip_folder / "0.mp4").read_bytes()

    def say(request):
        if request.method == "HEAD":
            return (b"HTTP/1.1 302 x\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n", CLOSE)
        return (answer(body=film), CLOSE)

    with Server({"flip": say}) as server:
        (tmp_path / "clips.csv").write_text(f"video_path,start,end,label\n{server.url}/flip,0,1,a\n")
        words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", PRIVATE, "--json"]
        assert mbt_data("build", *words).returncode == 0
        done = mbt_data("refresh", *words, "--older_than=0s", "--recheck=ok")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"]["train"]["records"] == 1
    newest = ledger.state(str(tmp_path / "out")).to_pylist()[0]
    assert (newest["outcome"], newest["reason"]) == ("transient", "bad_redirect")


def test_servers_that_trickle_hold_up_no_other_row(clip_folder, mbt_data, tmp_path):
    """As many as there are downloads at a time, before the good ones."""
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
    says = {
        "0-head": fixed(b"HTTP/1.1 200 OK\r\nX-Slow: ", [b"x", 0.1]),
        "0-interim": fixed([b"HTTP/1.1 100 Continue\r\n\r\n", 0.1]),
        "0-trailers": fixed(body, [b"X-More: 1\r\n", 0.1]),
        "1-good": fixed(answer(body=(clip_folder / "0.mp4").read_bytes()), CLOSE),
    }
    with Server(says) as server:
        rows = [f"{server.url}/{name},0,1,a,{name}" for name in says]
        (tmp_path / "clips.csv").write_text("\n".join(["video_path,start,end,label,id", *rows]) + "\n")
        words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", PRIVATE, "--downloads=3"]
        done = mbt_data("fetch", *words, "--download_time_limit=2")
    assert done.returncode == 0, done.stderr
    found = {row["clip_id"]: (row["outcome"], row["reason"]) for row in ledger.state(str(tmp_path / "out")).to_pylist()}
    assert found == dict.fromkeys(says, ("transient", "too_slow")) | {"1-good": ("ok", "")}


def test_a_row_in_this_network_is_fetched_only_by_permission(clip_folder, mbt_data, tmp_path):
    """By the flag, or where --media_root names its host; and what was fetched is not lost by a run without either."""
    with serving() as server:
        server.files["0.mp4"] = (clip_folder / "0.mp4").read_bytes()
        (tmp_path / "clips.csv").write_text(f"video_path,start,end,label\n{server.url}/0.mp4,0,1,a\n")
        words = [f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", "--json"]
        done = mbt_data("fetch", *words)
        assert json.loads(done.stdout)["splits"]["train"]["invalid"] == 1 and server.requests == []
        (row,) = ledger.state(str(tmp_path / "out")).to_pylist()
        assert row["reason"] == "private_host" and PRIVATE in row["detail"]
        assert mbt_data("build", *words, PRIVATE).returncode == 0 and len(server.requests) == 1
        kept = mbt_data("refresh", *words, "--older_than=0s", "--recheck=ok")
        assert json.loads(kept.stdout)["splits"]["train"]["records"] == 1 and server.heads == []
        (tmp_path / "clips.csv").write_text("video_path,start,end,label\n0.mp4,0,1,a\n")
        words[1] = f"--output={tmp_path}/named"
        done = mbt_data("build", *words, f"--media_root={server.url}")
        assert json.loads(done.stdout)["splits"]["train"]["records"] == 1


def test_a_film_that_comes_encoded_is_decoded_and_a_page_is_asked_for_again(clip_folder, mbt_data, tmp_path):
    film = (clip_folder / "0.mp4").read_bytes()
    bodies = {
        "gzip": answer(body=gzip.compress(film), Content_Encoding="gzip"),
        "chopped": answer(body=gzip.compress(film[:2000]), Content_Encoding="gzip"),
        "unknown": answer(body=film, Content_Encoding="rot13"),
        "short": answer(body=film, length=2000),
        "well": answer(body=film),
    }
    with Server({name: fixed(said, 0.2, CLOSE) for name, said in bodies.items()}) as server:
        rows = [f"{server.url}/{name},0,1,a,{name}" for name in bodies]
        (tmp_path / "clips.csv").write_text("\n".join(["video_path,start,end,label,id", *rows]) + "\n")
        done = mbt_data("fetch", f"--annotations={tmp_path}/clips.csv", f"--output={tmp_path}/out", PRIVATE)
    assert done.returncode == 0, done.stderr
    found = {row["clip_id"]: row["outcome"] for row in ledger.state(str(tmp_path / "out")).to_pylist()}
    lost = dict.fromkeys(("chopped", "unknown", "short"), "transient")
    assert found == {"gzip": "ok", "well": "ok"} | lost


@pytest.mark.parametrize(
    "clip", ["http://[", "http://", f"http://h:{'5' * 5000}/x.mp4", "http://\x00/", "http://a" + "b" * 70]
)
def test_a_url_that_is_none_is_one_line_of_predict(clip, tmp_path):
    with pytest.raises(media.MediaError) as caught:
        media.write_clip(clip, (0, None), [0], tmp_path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("cannot be fetched")


def test_predict_follows_no_redirect_into_this_network(tmp_path):
    """Its own URL is named by its command line; where that leads is a stranger's choice."""
    with serving() as server, serving() as other:
        with pytest.raises(media.MediaError) as caught:
            media.write_clip(f"{server.url}/to/x?http://localhost:{other.server_port}/x", (0, None), [0], tmp_path)
        assert "private network" in str(caught.value) and not other.requests


def test_the_environments_proxy_is_asked_and_no_other_file(tmp_path, monkeypatch):
    """A proxy that the environment names may be in this network; what is asked of it may not."""
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving() as proxy:
        proxy.files["x.mp4"] = b"abc"
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        download("http://films.example/x.mp4", str(tmp_path / "x"), Limits())
        assert (tmp_path / "x").read_bytes() == b"abc" and proxy.hosts == ["films.example"]
        with pytest.raises(FetchError) as caught:
            download("http://metadata.google.internal/x.mp4", str(tmp_path / "y"), Limits())
    assert caught.value.failure.reason == "private_host" and len(proxy.requests) == 1


def test_connections_are_kept_from_one_exchange_to_the_next(tmp_path):
    """Which saves a handshake a clip; at the deadline of the first one nothing is done to the second."""
    says = {"x": fixed(answer(), KEEP), "slow": fixed(answer(body=b"", length=3), 0.6, b"abc", KEEP)}
    with Server(says) as server:
        download(f"{server.url}/x", str(tmp_path / "x"), Limits(time_limit_s=0.3), hosts=NAMED)
        download(f"{server.url}/slow", str(tmp_path / "y"), Limits(time_limit_s=20), hosts=NAMED)
    assert (tmp_path / "y").read_bytes() == b"abc" and server.accepted == 1


def test_nothing_is_left_of_an_exchange(tmp_path):
    """No thread, no descriptor."""

    def left() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        before = left()
        for _ in range(3):
            with Bounds(0.2, NAMED) as bounds, pytest.raises(FetchError):
                Exchange(bounds).open("GET", url, {})
        assert left() <= before

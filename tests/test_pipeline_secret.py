"""Secrets from a Secret Manager of ours, over HTTP: what is asked, what arrives, and what no message holds."""

import base64
import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import google_crc32c
import pytest
from fake_youtube import FakeYouTube, Video
from odd_http.cases import answer, fixed
from odd_http.server import CLOSE, Server

from mbt.pipeline import availability, ledger, proxies, secret

MBT_DATA = str(Path(sys.executable).with_name("mbt-data"))


class Vault(http.server.ThreadingHTTPServer):
    """Answers `accessSecretVersion` from `secrets`, a version's name to its bytes; anything else is forbidden."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secrets: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.damage = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Vault

    def do_GET(self):
        name = self.path.partition("?")[0].removeprefix("/v1/").removesuffix(":access")
        self.server.asked.append(name)
        value = self.server.secrets.get(name)
        if value is None:
            answer: dict = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "not for you: BODYSECRET"}}
        else:
            payload = {"data": base64.b64encode(value).decode()}
            payload["dataCrc32c"] = str(google_crc32c.value(value) ^ self.server.damage)
            answer = {"name": name, "payload": payload}
        data = json.dumps(answer).encode()
        self.send_response(403 if value is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving():
    server = Vault()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def vault(monkeypatch):
    with serving() as server:
        monkeypatch.setenv(secret.ENDPOINT_VARIABLE, server.url)
        yield server


@pytest.mark.parametrize(
    ("place", "version"),
    [
        ("sm://my-project/key", "projects/my-project/secrets/key/versions/latest"),
        ("sm://my-project/key/7", "projects/my-project/secrets/key/versions/7"),
        ("projects/123/secrets/key", "projects/123/secrets/key/versions/latest"),
        ("projects/123/secrets/key/versions/2", "projects/123/secrets/key/versions/2"),
    ],
)
def test_the_version_that_is_named_is_asked_for(vault, place, version):
    vault.secrets[version] = b"KEYSECRET\n"
    assert secret.is_elsewhere(place) and availability.read_key(place) == "KEYSECRET"
    assert vault.asked == [version]


def test_a_file_that_workers_have_mounted(tmp_path):
    (tmp_path / "proxies").write_text("http://user:PROXYSECRET@127.0.0.1:1")
    assert secret.is_elsewhere(f"worker:{tmp_path}/proxies")
    assert proxies.read(f"worker:{tmp_path}/proxies").next() == "http://user:PROXYSECRET@127.0.0.1:1"
    assert not secret.is_elsewhere(f"{tmp_path}/proxies")


@pytest.mark.parametrize("place", ["sm://key", "sm://a/b/c/d", "sm:/a/b", "worker:key", "projects/a/secrets/b/c/d/e"])
def test_a_name_that_is_none_is_refused(place):
    with pytest.raises(secret.SecretError, match="write sm://PROJECT/NAME"):
        secret.is_elsewhere(place)


def test_what_goes_wrong_is_said_without_what_came(vault, tmp_path):
    with pytest.raises(secret.SecretError) as refused:
        secret.read("sm://my-project/none")
    assert str(refused.value) == "sm://my-project/none: Secret Manager does not give it (FORBIDDEN)"
    vault.secrets |= {
        "projects/p/secrets/binary/versions/latest": b"\xff\xfeBINARYSECRET",
        "projects/p/secrets/proxies/versions/latest": b"user:PROXYSECRET@nowhere",
    }
    errors = [refused.value]
    for read in (lambda: secret.read("sm://p/binary"), lambda: proxies.read("sm://p/proxies")):
        with pytest.raises((secret.SecretError, proxies.ProxiesError)) as refused:
            read()
        errors.append(refused.value)
    vault.damage = 1
    with pytest.raises(secret.SecretError, match="damaged") as refused:
        secret.read("sm://p/binary")
    for error in [*errors, refused.value]:
        # Nor in what Python would print of it.
        assert "SECRET" not in str(error) and (error.__cause__, error.__suppress_context__ or error.__context__) in (
            (None, True),
            (None, None),
        )


@pytest.mark.parametrize(
    "said",
    [
        fixed(answer(body=b"<html>Please log in</html>"), CLOSE),
        fixed(answer(body=b"[" * 100_000), CLOSE),
        fixed(answer(body=b"5"), CLOSE),
        fixed(answer(200, b"{}", Content_Encoding="gzip"), CLOSE),
        fixed(b"not http", CLOSE),
    ],
)
def test_a_page_in_place_of_secret_manager_is_one_line(monkeypatch, said):
    with Server({"v1": said}) as server:
        monkeypatch.setenv(secret.ENDPOINT_VARIABLE, server.url)
        monkeypatch.setattr(secret, "_TIMEOUT_S", 5.0)
        with pytest.raises(secret.SecretError, match="Secret Manager does not give it") as refused:
            secret.read("sm://p/key")
    assert "\n" not in str(refused.value) and "log in" not in str(refused.value)


def test_a_secret_manager_that_trickles_is_left(monkeypatch):
    with Server({"v1": fixed(b"HTTP/1.1 200 OK\r\nX-Slow: ", [b"x", 0.1])}) as server:
        monkeypatch.setenv(secret.ENDPOINT_VARIABLE, server.url)
        monkeypatch.setattr(secret, "_TIMEOUT_S", 2.0)
        started = time.monotonic()
        with pytest.raises(secret.SecretError, match="TimeoutError"):
            secret.read("sm://p/key")
        assert time.monotonic() - started < 2.2


def test_workers_read_their_cookies_from_secret_manager(vault, make_media, tmp_path):
    line = ".youtube.com\tTRUE\t/\tTRUE\t2147483647\tSID\tVERYSECRET\n"
    vault.secrets["projects/p/secrets/cookies/versions/latest"] = f"# Netscape HTTP Cookie File\n{line}".encode()
    film = make_media(tmp_path / "film.mp4", seconds=3)
    (tmp_path / "eval_segments.csv").write_text('# YTID\na_b-c_d-e_f, 0.000, 2.000, "/m/09x0r"')
    words = ["--dataset=audioset", f"--annotations={tmp_path}/eval_segments.csv", f"--output={tmp_path}/out"]
    with FakeYouTube(default=Video(formats={18: film}, seconds=3)) as fake:
        env = os.environ | fake.environment() | {"NO_PROXY": "127.0.0.1"}
        command = [MBT_DATA, "fetch", *words, "--cookies=sm://p/cookies"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        assert any("VERYSECRET" in cookie for cookie in fake.cookies)
    assert [row["outcome"] for row in ledger.state(str(tmp_path / "out")).to_pylist()] == ["ok"]
    assert "VERYSECRET" not in done.stdout + done.stderr
    assert not any(path.is_file() and b"VERYSECRET" in path.read_bytes() for path in (tmp_path / "out").rglob("*"))
